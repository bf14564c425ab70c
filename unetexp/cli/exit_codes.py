"""How every command ends: its exit code, and one clear message for a mistake."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from unetexp.errors import GateError, UnetexpError, UserError

DONE, FAILED, MISTAKE, GATE_RED, INTERRUPTED = 0, 1, 2, 3, 130


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn our errors into a message on standard error and an exit code."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
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
    except KeyboardInterrupt:
        console.print("interrupted", style="yellow")
        sys.exit(INTERRUPTED)
