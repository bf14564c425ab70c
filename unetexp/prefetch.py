"""Results of slow work, prepared in advance by threads of this process.

Why not processes: one that is forked while threads run, as in a Ray worker, may wait for a lock
forever; one that is spawned runs a script without `if __name__` again; and both send their results
through /dev/shm, which has only 64 MB in a container. The work here is reading and copying, during
which numpy lets other threads run.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Generic, TypeVar

from unetexp.errors import UnetexpError

Item = TypeVar("Item")
Result = TypeVar("Result")

TIMEOUT_S = 300.0
_AHEAD = 2  # items per thread


def prefetched(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int,
    timeout_s: float = TIMEOUT_S,
    describe: Callable[[Item], str] = str,
) -> Iterator[Result]:
    """`map(work, items)`, by `threads` threads, up to two items each in advance; 0: on demand.

    An exception of `work` is raised in place of its item. Raises UnetexpError if an item,
    `describe`d, takes longer than `timeout_s`.
    """
    if not threads:
        yield from map(work, items)
        return
    pool = _Pool(work, threads)
    pending: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            pending.append((item, pool.submit(item)))
            if len(pending) > _AHEAD * threads:
                yield pool.result(*pending.popleft(), timeout_s, describe)
        while pending:
            yield pool.result(*pending.popleft(), timeout_s, describe)
    finally:
        for _, future in pending:
            future.cancel()
        pool.close()


class _Pool(Generic[Item, Result]):
    """Daemon threads: unlike an executor's, one that hangs does not keep the process alive."""

    def __init__(self, work: Callable[[Item], Result], threads: int) -> None:
        self._work, self._threads = work, threads
        self._at: dict[Future[Result], str] = {}  # which thread has which item
        self._queue: queue.SimpleQueue[tuple[Item, Future[Result]] | None] = queue.SimpleQueue()
        for number in range(threads):
            name = f"loader-{number}"
            threading.Thread(target=self._serve, args=[name], name=name, daemon=True).start()

    def submit(self, item: Item) -> Future[Result]:
        future: Future[Result] = Future()
        self._queue.put((item, future))
        return future

    def result(
        self, item: Item, future: Future[Result], timeout_s: float, describe: Callable[[Item], str]
    ) -> Result:
        try:
            return future.result(timeout_s)
        except TimeoutError:
            if future.done():  # raised by the work itself
                raise
            raise UnetexpError(
                f"{describe(item)} could not be read within {timeout_s:g} s: thread "
                f"{self._at.get(future, 'loader')} of {self._threads} hangs. Is the disk or the "
                "network storage of the data cache (UNETEXP_CACHE) reachable and fast enough? "
                "Move the cache to a local disk, then start again."
            ) from None

    def close(self) -> None:
        """End the threads after their current items."""
        for _ in range(self._threads):
            self._queue.put(None)

    def _serve(self, name: str) -> None:
        while (job := self._queue.get()) is not None:
            item, future = job
            if not future.set_running_or_notify_cancel():
                continue
            self._at[future] = name
            try:
                future.set_result(self._work(item))
            except BaseException as error:
                future.set_exception(error)
            del self._at[future], job, item, future  # free the batch
