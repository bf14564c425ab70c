"""A bar on the terminal for work that tells how far it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

from unetexp.data.collection import Progress as Told


@contextmanager
def shown_progress(console: Console, first: str = "data") -> Iterator[Told]:
    """A bar that vanishes at its end; `first` is shown until the first call."""
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(first)
        yield lambda what, done, total: progress.update(
            task, description=what, completed=done, total=total
        )
