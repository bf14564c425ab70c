"""Work on many files at once: a bounded parallel map, and content hashes."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

from unetexp.data.collection import Progress
from unetexp.errors import DataError
from unetexp.system.machine import available_cores

T = TypeVar("T")
R = TypeVar("R")

_MOST_THREADS = 8
_NONE: Mapping[Path, str] = {}
_known: ContextVar[Mapping[Path, str]] = ContextVar("known_digests", default=_NONE)


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


@contextmanager
def known_digests(digests: Mapping[Path, str]) -> Iterator[None]:
    """Take these hashes as those of the files, which are not read for them again."""
    token = _known.set(digests)
    try:
        yield
    finally:
        _known.reset(token)


def file_digests(paths: Sequence[Path], on_progress: Progress | None = None) -> list[str]:
    """The SHA-256 of each file's content. Raises DataError for a file that cannot be read."""
    digests, known = [], _known.get()
    for digest in mapped_in_threads(lambda path: known.get(path) or _digest(path), paths):
        digests.append(digest)
        if on_progress:
            on_progress("Checking files", len(digests), len(paths))
    return digests


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: this file cannot be read: {error.strerror}.") from None
