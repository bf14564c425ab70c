"""Images that arrive together are predicted together, in one thread that never waits for a client.

The oldest image waits up to `batch_wait_ms` for others of its group; what arrives while a batch is
predicted waits for the next one. The number of images that wait is bounded by the server, which
admits a bounded number of requests.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from unetexp.data.collection import RawImage
from unetexp.errors import UserError
from unetexp.serving.engine import Engine, Prediction

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predicted:
    """A prediction and what it took."""

    prediction: Prediction
    waited_s: float
    predicted_s: float  # of the whole batch
    together: int  # images of the batch


@dataclass(eq=False)
class _Job:
    image: RawImage
    probabilities: bool
    group: Hashable
    arrived: float
    done: asyncio.Future[Predicted] = field(repr=False)


class Batcher:
    """Predicts images in batches. Used within one event loop, between `start` and `stop`."""

    def __init__(self, engine: Engine, size: int, wait_s: float) -> None:
        self._engine, self._size, self._wait_s = engine, size, wait_s
        self._waiting: list[_Job] = []
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "predict")
        self._worker: asyncio.Task[None] | None = None
        self.seconds_per_image = 0.0  # lately; 0 before the first
        self.failing = False  # the last batch failed

    def start(self) -> None:
        self._worker = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Drop what waits; a batch that is being predicted ends first."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        for job in self._waiting:
            job.done.cancel()
        self._waiting.clear()
        self._thread.shutdown()

    @property
    def waiting(self) -> int:
        """Images that wait."""
        return len(self._waiting)

    async def predict(self, image: RawImage, probabilities: bool) -> Predicted:
        """The prediction of a conformed image (C, H, W). Raises what the engine raises."""
        group = self._engine.group(image)
        done: asyncio.Future[Predicted] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Job(image, probabilities, group, time.monotonic(), done))
        self._arrived.set()
        return await done

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            batch = await self._next_batch()
            await self._predict(batch)

    async def _next_batch(self) -> list[_Job]:
        """The oldest image and others of its group, once they are enough or it has waited."""
        first = self._waiting[0]
        deadline = first.arrived + self._wait_s
        while first.group is not None and len(self._like(first)) < self._size:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                break
        batch = self._like(first)[: self._size]
        self._waiting = [job for job in self._waiting if job not in batch]
        return batch

    def _like(self, first: _Job) -> list[_Job]:
        if first.group is None:
            return [first]
        return [job for job in self._waiting if job.group == first.group]

    async def _predict(self, batch: Sequence[_Job]) -> None:
        started = time.monotonic()
        try:
            predictions = await self._computed(batch)
        except Exception as error:
            if len(batch) > 1:  # one image must not spoil the others'
                log.warning(
                    "%d images failed together (%s); each is tried alone", len(batch), error
                )
                for job in batch:
                    await self._predict([job])
                return
            self.failing = not isinstance(error, UserError)  # which is the client's mistake
            if not batch[0].done.done():
                batch[0].done.set_exception(error)
            return
        self.failing = False
        took = time.monotonic() - started
        self.seconds_per_image = took / len(batch)
        for job, prediction in zip(batch, predictions, strict=True):
            if not job.done.done():  # its client may have gone
                waited = started - job.arrived
                job.done.set_result(Predicted(prediction, waited, took, len(batch)))

    async def _computed(self, batch: Sequence[_Job]) -> list[Prediction]:
        images, wanted = [job.image for job in batch], [job.probabilities for job in batch]
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._engine.predict, images, wanted)
