"""Ctrl-C and SIGTERM: the first ends a sweep in good order, the second at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from unetexp.cli.exit_codes import INTERRUPTED

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def second_signal_kills() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first signal; at the second leave without another word."""
    received = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received += 1
        if received > 1:
            os._exit(INTERRUPTED)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """Hold signals back in a block that must not end half-way; tells whether one has arrived.

    Outside the main thread, where no signal arrives, nothing is held back.
    """
    arrived: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {
        number: signal.signal(number, lambda got, _: arrived.append(got)) for number in _SIGNALS
    }
    try:
        yield lambda: bool(arrived)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
