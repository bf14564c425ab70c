"""Work on many files at once: a bounded parallel map."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from unetexp.data.collection import Progress
from unetexp.system.machine import available_cores

T = TypeVar("T")
R = TypeVar("R")

_MOST_THREADS = 8


def mapped_in_threads(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`work` of each item, in order; at most a few results wait in memory."""
    threads = min(_MOST_THREADS, available_cores())
    executor = ThreadPoolExecutor(threads)
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(executor.submit(work, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


def mapped_and_told(
    work: Callable[[T], R], items: Sequence[T], what: str, on_progress: Progress | None
) -> Iterator[R]:
    """As `mapped_in_threads`; tells `on_progress` of `what` is done after each item."""
    for done, result in enumerate(mapped_in_threads(work, items), 1):
        if on_progress:
            on_progress(what, done, len(items))
        yield result
