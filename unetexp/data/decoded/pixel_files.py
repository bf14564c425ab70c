"""The files that hold decoded pixels: mapped, read, cut. H W image size, h w window size."""

from __future__ import annotations

import mmap
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unetexp.data.collection import Labels
from unetexp.errors import DataError

_MAPPED_BYTES = 2**28  # of a file that a process may keep mapped without counting
_READS = 64  # of a larger one before it is let go


class PixelFile:
    """A file of bytes, mapped on first use.

    Mapped pages count as memory of the process, although the system can take them back at any
    time. So those of a large file are let go now and then; the system's file cache keeps them.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._reads = path, 0
        self._bytes: np.memmap[Any, Any] | None = None

    def between(self, begin: int, end: int) -> Labels:
        """A view of a part; DataError where the file is missing or damaged."""
        if self._bytes is None:
            try:
                self._bytes = np.memmap(self._path, np.uint8, mode="r")
            except (OSError, ValueError):
                raise gone(self._path) from None
        self._reads += 1
        if self._reads % _READS == 0:
            self.let_go()
        return self._bytes[begin:end]

    def let_go(self) -> None:
        """Give mapped pages back, if there may be many; views stay valid."""
        pages = getattr(self._bytes, "_mmap", None)
        if pages is not None and len(pages) > _MAPPED_BYTES:
            pages.madvise(mmap.MADV_DONTNEED)


def packed_mask(path: Path, begin: int, end: int) -> bytearray:
    """A mask that lies compressed in a part of a file; DataError where it is damaged."""
    try:
        with path.open("rb") as file:
            file.seek(begin)
            return bytearray(zlib.decompress(file.read(end - begin)))
    except (OSError, zlib.error):
        raise gone(path) from None


def gone(path: Path) -> DataError:
    """The error about a file that the cache should hold."""
    return DataError(
        f"{path}: the decoded images are missing or damaged. Start again: they are rebuilt."
    )


def starts(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where parts of these sizes begin, and the end of the last one."""
    return np.concatenate([[0], np.cumsum(sizes)])


def overlap(start: int, length: int, extent: int) -> tuple[slice, slice]:
    """The part of [start, start + length) inside [0, extent), and its place in the window."""
    first = min(max(start, 0), extent)
    last = max(min(start + length, extent), first)
    return slice(first, last), slice(first - start, last - start)


def copy_into(
    target: npt.NDArray[Any], inside: tuple[slice, slice], part: npt.NDArray[Any], outside: int
) -> None:
    """Write `part` into the place `inside` of the last two axes, and `outside` around it."""
    rows, columns = inside
    target[..., : rows.start, :] = outside
    target[..., rows.stop :, :] = outside
    target[..., rows, : columns.start] = outside
    target[..., rows, columns.stop :] = outside
    target[..., rows, columns] = part
