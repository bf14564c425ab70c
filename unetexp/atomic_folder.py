"""Folders that are written completely or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NEW, _OLD = ".new-", ".old-"


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A scratch folder next to `folder` that replaces it when the block ends without an error.

    Readers of `folder` see either the old or the new content. After a crash `recover` restores the
    old content. Only one process may replace a folder at a time.
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
    """Undo a replacement of `folder` that a crash interrupted."""
    old = folder.with_name(_OLD + folder.name)
    if old.exists() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def sync(folder: Path) -> None:
    """Flush the files in `folder` to disk, before they are renamed."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
