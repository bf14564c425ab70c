"""Folders that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NEW, _OLD = ".new-", ".old-"


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A scratch folder beside `folder` that takes its place when the block ends well.

    Whoever reads `folder` sees the old content or the new one. After a crash `recover` puts the
    old one back. Only one process may replace a folder at a time.
    """
    new, old = folder.with_name(_NEW + folder.name), folder.with_name(_OLD + folder.name)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        sync(new)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    recover(folder)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> None:
    """Undo a replacement of `folder` that a crash cut short."""
    old = folder.with_name(_OLD + folder.name)
    if old.exists() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def sync(folder: Path) -> None:
    """Have the disk hold the files before their names change."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
