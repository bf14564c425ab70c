"""A few loaded things in memory, each loaded once however many threads ask."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """`kept(key)` is `load(key)`; the `most` that were asked for last stay in memory."""

    def __init__(self, load: Callable[[K], V], most: int) -> None:
        self._load, self._most = load, most
        self._results: OrderedDict[K, Future[V]] = OrderedDict()
        self._lock = Lock()

    def __call__(self, key: K) -> V:
        with self._lock:
            result = self._results.get(key)
            first = result is None
            if result is None:
                result = self._results[key] = Future()
            self._results.move_to_end(key)
            while len(self._results) > self._most:
                self._results.popitem(last=False)
        if first:
            try:
                result.set_result(self._load(key))
            except BaseException as error:
                result.set_exception(error)
                raise
        return result.result()
