"""One thread that computes for the whole life of a process, whichever thread asks for it.

cuDNN keeps its plans per thread, CUDA graphs and OpenMP their pools, and torch counts its threads
per thread. A process that trains one model after another, each in a thread of its own, would tune
and start all of that again each time.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class ComputeThread:
    """A daemon thread, started when it is first needed, that does one piece of work at a time."""

    def __init__(self, name: str = "compute") -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._starting = threading.Lock()

    def run(self, work: Callable[[], T]) -> T:
        """The result of `work()`, called in the thread; its exceptions, of any kind, are raised.

        The thread holds nothing of the work once it has ended. Not to be called by the work.
        """
        assert threading.current_thread() is not self._thread
        with self._starting:
            if self._thread.ident is None:
                self._thread.start()
        future: Future[T] = Future()
        self._jobs.put((work, future))
        try:
            return future.result()
        finally:
            del future  # it holds the exception, whose traceback holds this frame

    def _serve(self) -> None:
        while True:
            work, future = self._jobs.get()
            try:
                future.set_result(work())
            except BaseException as error:  # SystemExit too: it is for the thread that asked
                future.set_exception(error)
            del work, future


_ONLY = ComputeThread()


def in_compute_thread(work: Callable[[], T]) -> T:
    """`ComputeThread.run` in this process's one thread for it."""
    return _ONLY.run(work)
