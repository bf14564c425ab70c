"""SIGINT, SIGTERM and SIGHUP: the first one ends a command cleanly.

Each of the three raises KeyboardInterrupt in the main thread. `exit_code` distinguishes them,
because libraries replace our KeyboardInterrupt by a new one. A second Ctrl-C ends the command at
once. Another SIGTERM or SIGHUP is ignored: `timeout`, service managers and closing terminals send
several in quick succession.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from unetexp.system.lost_output import output_may_be_lost

INTERRUPTED, STOPPED = 130, 143

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """The stop signals that have arrived since a command began."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.held = False  # the first raises nothing until `release`
        self.shielded = False  # as `held`, and a second Ctrl-C is ignored, too
        self._process = os.getpid()

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, 143 for the others."""
        return INTERRUPTED if self.first in (None, signal.SIGINT) else STOPPED

    def describe(self) -> str:
        """The reason for the end, as one line for the user."""
        if self.first is None or self.exit_code == INTERRUPTED:
            return "interrupted"
        return f"stopped by {signal.Signals(self.first).name}"

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The handler of all three signals."""
        if os.getpid() != self._process:  # a forked process, which has nothing to finish
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self.first is None:
            self.first = number
            if not (self.held or self.shielded):
                raise KeyboardInterrupt
        elif number == signal.SIGINT and not self.shielded:
            _kill_children()
            os._exit(self.exit_code)


_active: StopSignals | None = None  # signal handlers are per process, so there is one at a time
_exit_code = 0  # once a signal has ended the command


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Handle the signals while a command runs.

    SIGHUP stays ignored if it was before, as under `nohup`. Outside the main thread, where Python
    delivers no signal, nothing is handled.
    """
    global _active
    before, _active = _active, StopSignals()
    try:
        with _handled_by(_active):
            yield _active
    finally:
        _active = before


def exit_stopped(stop: StopSignals) -> NoReturn:
    """End the command with the signal's exit code."""
    global _exit_code
    _exit_code = stop.exit_code
    sys.exit(_exit_code)


@contextmanager
def shielded() -> Iterator[Callable[[], bool]]:
    """Hold back signals in a block that must run to its end; yields a check whether one arrived."""
    stop = _active or StopSignals()
    before, stop.shielded = stop.shielded, True
    try:
        with _handled_by(stop):
            yield lambda: stop.first is not None
    finally:
        stop.shielded = before


def hold() -> None:
    """Let the first signal raise nothing until `release`; a second Ctrl-C ends the process."""
    if _active is not None and _active.first is None:
        _active.held = True


def release() -> None:
    """End `hold`; raises KeyboardInterrupt if a signal has arrived in the meantime."""
    if _active is not None and _active.held:
        _active.held = False
        raise_if_stopped()


def raise_if_stopped() -> None:
    """Raise KeyboardInterrupt if a signal has arrived.

    The handler's own exception is lost if the signal arrives during Python code that C++ or the
    garbage collector has called.
    """
    if _active is not None and _active.first is not None:
        raise KeyboardInterrupt


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Keep a library from replacing the current signal handlers.

    Handlers that it sets from Python are never installed. Those that it sets from C++, which Python
    does not see, are removed at the end of the block. Ray's C++ handler would abort the process by
    an alarm 3 s after SIGTERM.
    """
    set_handler = signal.signal
    before: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}

    def keep(number: int, handler: Any) -> Any:
        return before[number] if number in before else set_handler(number, handler)

    signal.signal = keep  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = set_handler
        if threading.current_thread() is threading.main_thread():
            _put_back(before)
            if _active is not None and _active.first is not None:
                signal.alarm(0)


@contextmanager
def handlers_put_back() -> Iterator[None]:
    """Put back the handlers that a library takes away from C++, as Ray's shutdown does.

    At its next Python call: Ray's takes seconds more, in which a signal would kill the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}
    profile = sys.getprofile()
    sys.setprofile(lambda *_: _put_back(before))
    try:
        yield
    finally:
        sys.setprofile(profile)
        _put_back(before)


def _put_back(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def begin_process() -> None:
    """Let the first signal end the process with one line, while modules are being imported.

    Call it before other modules register their exit handlers. Once those have run after a signal,
    the process ends without waiting for libraries: Ray's would wait for 6 s if the signal went to
    all processes, including its own.
    """
    _install(_leave_at_once)
    atexit.register(_leave_if_stopped)


def _leave_at_once(number: int, frame: FrameType | None) -> None:
    stop = StopSignals()
    stop.first = number
    try:
        os.write(2, f"{stop.describe()}\n".encode())
    finally:
        os._exit(stop.exit_code)


def _kill_children() -> None:
    """What would stay for a while: processes of Ray's see only later that this one is gone."""
    import psutil  # not before it is needed: signals are handled while modules are imported

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()


def _leave_if_stopped() -> None:
    if _exit_code:
        with output_may_be_lost():
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(_exit_code)


@contextmanager
def _handled_by(stop: StopSignals) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = _install(stop.handle)
    try:
        yield
    finally:
        _put_back(before)


def _install(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Install the handler and return the earlier ones by signal."""
    hung_up = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # by `nohup`
    return {
        number: signal.signal(number, handler)
        for number in _SIGNALS
        if not (number == signal.SIGHUP and hung_up)
    }
