"""Where the classes of a split are: pixels of each class in each image, and places of some.

Counted once from the masks, at first use, and kept beside them in the cache. The places of a class
in an image are a sample of at most `MOST_PLACES`, drawn with replacement, so that the index stays
small. They are not kept for the split's most frequent class, which every crop finds.

I images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from unetexp.data.cache_folder import write_whole

MOST_PLACES = 64
_SEED = 0  # of the sample: always the same places


@dataclass(frozen=True)
class ClassPlaces:
    """The index of one split."""

    counts: NDArray[np.int64]  # (I, K) pixels
    starts: NDArray[np.int64]  # (I, K + 1): where an image's places of a class begin in `places`
    places: NDArray[np.int32]  # row * width + column, image by image and class by class

    @classmethod
    def count(
        cls, masks: Callable[[int], NDArray[np.uint8]], images: int, classes: int, common: int
    ) -> Self:
        """Read every mask (H, W) once; no places are kept of the class `common`."""
        counts = np.zeros((images, classes), np.int64)
        found: list[NDArray[np.int32]] = []
        starts = np.zeros((images, classes + 1), np.int64)
        for index in range(images):
            mask = masks(index).reshape(-1)
            counts[index] = np.bincount(mask, minlength=256)[:classes]
            lengths = np.zeros(classes, np.int64)
            for label in np.flatnonzero(counts[index]):
                if label != common:
                    found.append(_some(np.flatnonzero(mask == label), index, int(label)))
                    lengths[label] = len(found[-1])
            starts[index] = starts[index - 1, -1] + np.concatenate([[0], np.cumsum(lengths)])
        return cls(counts, starts, np.concatenate(found) if found else np.zeros(0, np.int32))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The index of several splits in a sequence, which all lack the places of one class."""
        ends = np.cumsum([0, *(len(part.places) for part in parts)])
        return cls(
            np.concatenate([part.counts for part in parts]),
            np.concatenate([part.starts + end for part, end in zip(parts, ends, strict=False)]),
            np.concatenate([part.places for part in parts]),
        )

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """The index kept at `path`; None if it is missing or damaged."""
        try:
            with np.load(path, allow_pickle=False) as kept:
                return cls(kept["counts"], kept["starts"], kept["places"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None

    def save(self, path: Path) -> None:
        """Keep it at `path`, whole or not at all; where nothing can be written, it is not kept."""

        def write(file: Path) -> None:
            np.savez(file, counts=self.counts, starts=self.starts, places=self.places)

        with suppress(OSError):
            write_whole(path, write)

    def of(self, index: int, label: int) -> NDArray[np.int32]:
        """The places kept of a class in an image; none if it is not there."""
        return self.places[self.starts[index, label] : self.starts[index, label + 1]]


def _some(places: NDArray[np.int64], index: int, label: int) -> NDArray[np.int32]:
    if len(places) > MOST_PLACES:
        chosen = np.random.default_rng((_SEED, index, label)).integers(
            len(places), size=MOST_PLACES
        )
        places = places[chosen]
    return places.astype(np.int32)
