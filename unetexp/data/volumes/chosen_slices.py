"""Which slices of the volumes are used: all, or those with enough foreground.

S slices of a volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from unetexp.data.cache_folder import remembered_array
from unetexp.data.collection import Progress
from unetexp.data.files.file_hashing import content_hash
from unetexp.data.labels import VOID
from unetexp.data.threads import mapped_and_told
from unetexp.data.volumes.case import Case
from unetexp.data.volumes.volume_set import VolumeSet

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """The slices that are used."""

    min_foreground: float  # of a slice's pixels
    keep_empty: float  # of the slices without foreground

    def of(
        self, volumes: VolumeSet, on_progress: Progress | None = None
    ) -> dict[str, Sequence[int]]:
        """The slices of each case, by its name. Labels are read only if some are left out."""
        cases = volumes.every()
        if self.min_foreground == 0 and self.keep_empty == 1:
            return {case.name: range(volumes.count(case)) for case in cases}
        shares = mapped_and_told(
            partial(_foreground, volumes), cases, "Looking for foreground", on_progress
        )
        return {c.name: self._chosen(share) for c, share in zip(cases, shares, strict=True)}

    def _chosen(self, shares: Shares) -> list[int]:
        """The slices with enough foreground, and a part of the empty ones, evenly spread."""
        empty = np.flatnonzero(shares == 0)
        steps = np.floor(np.arange(len(empty) + 1) * self.keep_empty + 1e-9)
        spread = empty[np.diff(steps) > 0]
        filled = np.flatnonzero((shares > 0) & (shares >= self.min_foreground))
        kept = filled if self.min_foreground > 0 else np.union1d(filled, spread)
        return [int(index) for index in kept]


def _foreground(volumes: VolumeSet, case: Case) -> Shares:
    """The share of foreground in each slice (S,), from the cache or counted."""
    state = case.label.stat()
    told = [str(case.label), state.st_size, state.st_mtime_ns, *volumes.size(case)]
    told += [volumes.slicing.axis, volumes.description.ignored]
    key = content_hash(told)

    def counted() -> Shares:
        labels = volumes.labels(case)
        shares: Shares = ((labels > 0) & (labels < VOID)).mean(axis=(1, 2))
        return shares

    return remembered_array(f"{key}.foreground.npy", (volumes.count(case),), np.float64, counted)
