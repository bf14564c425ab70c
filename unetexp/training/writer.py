"""Files written beside training: a thread saves snapshots while the next epoch trains."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

Job = Callable[[], None]


class FileWriter:
    """A thread that runs jobs in their order; one runs, and at most one waits.

    A job's exception is raised by the next call. Later jobs are dropped then: a file may only
    appear after those that were to be written before it.
    """

    def __init__(self) -> None:
        self._jobs: queue.Queue[Job | None] = queue.Queue(maxsize=1)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="file-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Hand over a job; waits while another one is waiting already."""
        self._raise_error()
        self._jobs.put(job)

    def flush(self) -> None:
        """Wait until all jobs are done."""
        self._jobs.join()
        self._raise_error()

    def __enter__(self) -> FileWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        stopped_at: TracebackType | None,
    ) -> None:
        """Finish all jobs and end the thread, also after an error or a stop of training."""
        self._jobs.put(None)
        self._thread.join()
        if error is not self._error:
            self._raise_error()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._error is None:
                try:
                    job()
                except BaseException as error:
                    self._error = error
            del job  # free its snapshot
            self._jobs.task_done()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error


@dataclass(frozen=True)
class Snapshot:
    """A copy of a state in host memory, which training no longer changes."""

    _content: dict[str, Any]
    _copied: torch.cuda.Event | None

    @classmethod
    def of(cls, state: dict[str, Any], device: torch.device) -> Snapshot:
        """Copy all tensors in `state`: nested dictionaries, lists and tuples.

        Those on the GPU `device` are copied after the work that is queued there, without waiting.
        """
        content: dict[str, Any] = _copied(state)
        on_gpu = device.type == "cuda"
        return cls(content, torch.cuda.current_stream(device).record_event() if on_gpu else None)

    def content(self) -> dict[str, Any]:
        """The copy; waits until a GPU has delivered it."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._content


def _copied(part: Any) -> Any:
    match part:
        case Tensor():
            if part.device.type != "cuda":
                return part.detach().clone()
            host = torch.empty_like(part, device="cpu", pin_memory=True)
            return host.copy_(part.detach(), non_blocking=True)
        case dict():
            return {name: _copied(value) for name, value in part.items()}
        case list():
            return [_copied(value) for value in part]
        case tuple():
            return tuple(_copied(value) for value in part)
    return part
