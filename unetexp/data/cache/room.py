"""Room for decoded sets: at most so many gigabytes in the cache folder, and what the disk has free.

The set that was not used for the longest time goes first; one that a process has open stays. A
process holds a shared lock on the index of each set that it has opened, which ends with it.
"""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from unetexp.errors import ConfigError

LIMIT_VARIABLE = "UNETEXP_CACHE_GB"
INDEX = "index.json"
GB = 10**9
_SPARE_BYTES = 2**29  # of the disk, for everything else
_open: dict[Path, int] = {}  # file descriptors, for the life of the process


def limit_bytes() -> float:
    """The most that decoded sets may take, by the environment; infinite where nothing is set."""
    given = os.environ.get(LIMIT_VARIABLE, "").strip()
    if not given:
        return math.inf
    try:
        gigabytes = float(given)
    except ValueError:
        gigabytes = math.nan
    if not gigabytes >= 0:
        raise ConfigError(
            f"{LIMIT_VARIABLE} is {given!r}: give the gigabytes that decoded images may take in "
            "the cache, at least 0, such as 50. 0: they are decoded each time they are needed."
        )
    return gigabytes * GB


def hold(place: Path) -> None:
    """Note that the set is used now, and keep it from being removed while this process lives."""
    index = place / INDEX
    with suppress(OSError):
        os.utime(index)
    with suppress(OSError):
        descriptor = os.open(index, os.O_RDONLY | os.O_CLOEXEC)
        before = _open.pop(place, None)
        _open[place] = descriptor
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if before is not None:
            os.close(before)


@dataclass(frozen=True)
class _Stored:
    """A set in the cache."""

    place: Path
    size: int
    used: float

    def is_open(self) -> bool:
        """Whether a process has it open."""
        try:
            descriptor = os.open(self.place / INDEX, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def remove(self) -> None:
        """Take it out of sight at once, and then from the disk."""
        gone = self.place.with_name(f"{self.place.name}.building-{uuid.uuid4().hex}")
        with suppress(OSError):
            self.place.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


class Room:
    """Room for one set that is about to be written below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._limit, self._written = folder, limit_bytes(), 0
        self._stored = _sets(folder)
        self._free = self._disk()  # for this set: what is written may not show on the disk yet
        self.lack = ""  # why there is no room

    def free_bytes(self) -> float:
        """The most that there would be room for."""
        removable = self._removable()
        kept = sum(each.size for each in self._stored) - sum(each.size for each in removable)
        disk = self._free + sum(each.size for each in removable)
        return min(self._limit - kept, disk)

    def take(self, size: int, expected: float) -> bool:
        """Whether `size` more bytes may be written, of a set that is `expected` to take so many.

        Older sets are removed for it, unless the whole set would have no room even so.
        """
        self._written += size
        while not self._fits(size):
            removable = self._removable()
            if max(expected, self._written) > self.free_bytes() or not removable:
                self.lack = self._words(expected)
                return False
            oldest = min(removable, key=lambda each: each.used)
            oldest.remove()
            self._stored.remove(oldest)
            self._free += oldest.size
        return True

    def _fits(self, size: int) -> bool:
        taken = sum(each.size for each in self._stored)
        on_disk = self._written <= self._free and size <= self._disk()
        return on_disk and taken + self._written <= self._limit

    def _removable(self) -> list[_Stored]:
        return [each for each in self._stored if each.size and not each.is_open()]

    def _disk(self) -> float:
        return shutil.disk_usage(self._folder).free - _SPARE_BYTES

    def _words(self, expected: float) -> str:
        needed = f"about {max(expected, self._written) / GB:.3g} GB"
        if self._written > self._limit or max(expected, self._written) > self._limit:
            return f"{needed}, and the cache may hold {self._limit / GB:.3g} GB (--cache-gb)"
        return f"{needed}, and {self._folder} has {max(0.0, self._free) / GB:.3g} GB left for it"


def _sets(folder: Path) -> list[_Stored]:
    found = []
    for index in folder.glob(f"*/{INDEX}"):
        with suppress(OSError):  # another process removes it
            files = [path.stat().st_size for path in index.parent.iterdir() if path != index]
            found.append(_Stored(index.parent, sum(files), index.stat().st_mtime))
    return found
