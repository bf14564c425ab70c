"""Our train step: the whole of it as `fit` runs it, and the same model on given tensors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.peers.loops import LR, Batch, Combination
from unetexp.data import Dataset
from unetexp.training.batches.train_batches import TrainBatches
from unetexp.training.config import TrainConfig, decode_config
from unetexp.training.loop import fit
from unetexp.training.losses import loss_for
from unetexp.training.state import TrainState

ENDLESS = 100_000  # epochs: each round takes the next one


def our_config(
    how: Combination,
    *,
    px: int,
    batch: int,
    decoder: str = "slim",
    freeze: str = "none",
    encoder: str = "resnet50",
) -> TrainConfig:
    """The defaults of `TrainConfig`, at the size and the combination asked for."""
    tree: dict[str, Any] = {
        "data": {"kind": "mni152"},  # not opened: the caller has data
        "encoder": {"name": encoder, "weights": "none", "freeze": freeze},
        "decoder": {"kind": decoder},
        "augment": {"crop_px": px},
        "optimizer": {"kind": "adamw", "lr": LR},
        "batch_size": batch,
        "epochs": ENDLESS,
        "batch_norm_images": 0,  # part of validation, which is not timed
    }
    # A compiled step is a setting of newer versions.
    settings = {n: v for n, v in how.tree().items() if n in TrainConfig.model_fields}
    return decode_config({**tree, **settings})


class WholeStep:
    """An arm: one epoch of `fit`, timed by itself; data, augmentation, clipping and all.

    `steps` counts the optimiser's, `waited_s` is how long each epoch waited for its raw batches.
    """

    def __init__(
        self, config: TrainConfig, data: Dataset, device: torch.device, workers: int = 0
    ) -> None:
        self.state = TrainState(config, data, device)
        self.steps = 0
        self.state.optimizer.register_step_post_hook(self._count)
        self._reports = fit(config, data, self.state, workers=workers)
        self.waited_s: list[float] = []
        self.trained_s: list[float] = []

    def __call__(self) -> float:
        before = self.steps
        with _waiting() as waited:
            report = next(self._reports)
        self.waited_s.append(sum(waited))
        self.trained_s.append(report.metrics["time/train_s"])
        return self.trained_s[-1] / (self.steps - before)

    @property
    def waiting_share(self) -> float:
        """The share of the training time spent waiting for raw batches, the first epoch left out.

        With `workers=0` the batches are made in that time.
        """
        return sum(self.waited_s[1:]) / sum(self.trained_s[1:])

    def _count(self, *_: Any) -> None:
        self.steps += 1


@contextmanager
def _waiting() -> Iterator[list[float]]:
    """Seconds that the loop waits for each micro-batch meanwhile."""
    waited: list[float] = []
    original = TrainBatches.epoch

    def epoch(self: TrainBatches, *args: Any, **kwargs: Any) -> Iterator[Any]:
        batches = iter(original(self, *args, **kwargs))
        while True:
            started = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                waited.append(time.perf_counter() - started)
            yield batch

    with patch.object(TrainBatches, "epoch", epoch):
        yield waited


class GivenStep:
    """Our model, loss, clipping and optimiser on given tensors: a step without its data."""

    def __init__(self, config: TrainConfig, data: Dataset, batch: Batch) -> None:
        self.device = batch.images.device
        self.config = config
        self.state = TrainState(config, data, self.device)
        self.state.model.train()
        self.images = batch.images.contiguous(memory_format=self.state.compute.layout)
        self.labels = batch.labels
        self.loss = loss_for(config.loss, data)
        mode = getattr(self.state.compute, "compile", "none")
        self.forward = (
            self.state.model if mode == "none" else torch.compile(self.state.model, mode=mode)
        )

    def __call__(self) -> None:
        torch.backends.cudnn.benchmark = True
        with self.state.compute.autocast(self.device):
            logits = self.forward(self.images)
        self.loss(logits, self.labels).backward()
        if self.config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.state.model.parameters(), self.config.clip_norm)
        self.state.optimizer.step()
        self.state.optimizer.zero_grad(set_to_none=True)
        if self.state.ema:
            self.state.ema.update(self.state.model)
