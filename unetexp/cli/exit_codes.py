"""How every command ends: its exit code, and one clear message for a mistake."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from unetexp.errors import GateError, UnetexpError, UserError
from unetexp.system.lost_output import output_may_be_lost
from unetexp.system.stop_signals import exit_stopped, stop_signals

DONE, FAILED, MISTAKE, GATE_RED = 0, 1, 2, 3  # and 130 or 143 where a signal has ended it


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn our errors, and signals, into a message on standard error and an exit code."""
    with output_may_be_lost(), stop_signals() as stop:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        try:
            with _messages(console):
                yield
        except KeyboardInterrupt:
            console.print(stop.describe(), style="yellow")
            exit_stopped(stop)


@contextmanager
def _messages(console: Console) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        console.print(f"error: {error}", style="red", markup=False)
        sys.exit(MISTAKE)
    except GateError as error:
        console.print(str(error), style="red", markup=False)
        sys.exit(GATE_RED)
    except UnetexpError as error:
        console.print(f"failed: {error}", style="red", markup=False)
        sys.exit(FAILED)
