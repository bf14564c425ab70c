"""What a plan needs to know about a data set, from a part of its images.

K classes, C channels. Sizes are in pixels of the images as they are stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from unetexp.data import DataSource
from unetexp.data.collection import Collection, Labels, Pair, Progress
from unetexp.data.label_values.label_checks import interpret
from unetexp.data.label_values.label_map import AS_STORED, UNMAPPED, value_table
from unetexp.data.label_values.split_labels import SplitLabels
from unetexp.data.labels import VOID
from unetexp.data.splits.fold_names import is_fold
from unetexp.data.threads import mapped_and_told
from unetexp.errors import DataError

MOST_IMAGES = 48  # looked at: enough for quantiles, a few seconds for photographs
_MOST_VALUES = 64  # of a mask, the commonest
_SMALLEST_OBJECT_PX = 9  # in area; below, it is noise along an edge


@dataclass(frozen=True)
class DataFacts:
    """A data set in figures."""

    images: Mapping[str, int]  # in each split
    looked_at: int  # images that the figures below are from
    heights: tuple[int, ...]
    widths: tuple[int, ...]
    channels: int
    bits: int
    class_names: tuple[str, ...]  # K; numbers where the data names none
    shares: tuple[float, ...]  # of the labelled pixels
    void_share: float
    diameters: tuple[float, ...]  # of a circle of each object's area; all but the commonest class

    @property
    def longest_side(self) -> int:
        """The median over the images."""
        return int(np.median(np.maximum(self.heights, self.widths)))

    @property
    def shortest_side(self) -> int:
        """The median over the images."""
        return int(np.median(np.minimum(self.heights, self.widths)))

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def rarest(self) -> tuple[str, float]:
        """The class with the fewest pixels, of those that occur, and its share."""
        present = [k for k, share in enumerate(self.shares) if share > 0]
        k = min(present, key=lambda k: self.shares[k])
        return self.class_names[k], self.shares[k]

    def small_object(self) -> float:
        """The diameter that nine of ten objects exceed."""
        return float(np.quantile(self.diameters, 0.1)) if self.diameters else 0.0

    def usual_object(self) -> float:
        """The median diameter."""
        return float(np.median(self.diameters)) if self.diameters else 0.0


def look_at(source: DataSource, on_progress: Progress | None = None) -> DataFacts:
    """The facts of a source; decodes at most `MOST_IMAGES` images. Raises DataError."""
    collection = source.collect(on_progress)
    splits = collection.pairs()
    pairs = _spread(splits)
    looks = _looks(pairs, collection, on_progress)
    _require_classes(collection, splits, pairs, looks)
    counts = np.sum([look.counts for look in looks], axis=0)
    table = value_table(counts > 0, collection.label_map, collection.ignore)
    if collection.label_map is not None:
        table = AS_STORED  # the looks have applied it
    names = collection.class_names or _numbered(table[np.flatnonzero(counts)])
    labelled = np.array([counts[table == k].sum() for k in range(len(names))])
    if not labelled.any():
        raise DataError(
            f"{collection.where}: no pixel of {len(looks)} masks belongs to a class: there is "
            "nothing to plan for. Look at the masks, or at data.label_map."
        )
    common = int(np.argmax(labelled))
    return DataFacts(
        images=_images(splits),
        looked_at=len(looks),
        heights=tuple(look.shape[1] for look in looks),
        widths=tuple(look.shape[2] for look in looks),
        channels=max(look.shape[0] for look in looks),
        bits=max(look.bits for look in looks),
        class_names=tuple(names),
        shares=tuple((labelled / labelled.sum()).tolist()),
        void_share=float(counts[table == VOID].sum() / counts.sum()),
        diameters=tuple(
            diameter
            for look in looks
            for value, diameters in look.diameters.items()
            if table[value] not in (common, VOID, UNMAPPED)
            for diameter in diameters
        ),
    )


class _Look(NamedTuple):
    """One image and its mask."""

    shape: tuple[int, int, int]  # C, H, W
    bits: int
    counts: npt.NDArray[np.int64]  # (256,) pixels of each value in the mask
    diameters: Mapping[int, tuple[float, ...]]  # of the regions of each value


def _require_classes(
    collection: Collection,
    splits: Mapping[str, Sequence[Pair]],
    pairs: Sequence[Pair],
    looks: Sequence[_Look],
) -> None:
    """Raise DataError where all masks were looked at and no sweep would train on their values."""
    seen = {id(pair): look for pair, look in zip(pairs, looks, strict=True)}
    splits = {name: members for name, members in splits.items() if name != "test"}
    if collection.label_map is not None or len(seen) < sum(map(len, splits.values())):
        return
    labels = {
        split: SplitLabels(
            [pair.name for pair in members],
            [pair.mask_file for pair in members],
            np.stack([seen[id(pair)].counts for pair in members]).astype(np.int32),
        )
        for split, members in splits.items()
    }
    meaning = interpret(
        labels,
        collection.class_names,
        collection.where,
        split_method=str(collection.split_record["method"]),
        ignore=collection.ignore,
        wide=collection.wide,
        mask_at=lambda split, number: splits[split][number].load()[1],
    )
    if meaning.problems:
        raise DataError("\n".join(f"{collection.where}: {each}" for each in meaning.problems))


def _images(splits: Mapping[str, Sequence[Pair]]) -> dict[str, int]:
    """How many images each split holds, in the case of folds for the model of one of them."""
    counts = {name: len(members) for name, members in splits.items()}
    folds = [count for name, count in counts.items() if is_fold(name)]
    if not folds:
        return counts
    rest = {name: count for name, count in counts.items() if not is_fold(name)}
    return {"train": sum(folds) - max(folds), "val": max(folds), **rest}


def _spread(splits: Mapping[str, Sequence[Pair]]) -> list[Pair]:
    """Up to `MOST_IMAGES` pairs, evenly from all splits but test."""
    pairs = [pair for name, members in splits.items() if name != "test" for pair in members]
    places = np.unique(np.linspace(0, len(pairs) - 1, min(MOST_IMAGES, len(pairs))).astype(int))
    return [pairs[place] for place in places.tolist()]


def _looks(
    pairs: Sequence[Pair], collection: Collection, on_progress: Progress | None
) -> list[_Look]:
    table = None
    if collection.label_map is not None:  # which needs no look at the values present
        nothing = np.zeros(VOID + 1, np.bool_)
        table = value_table(nothing, collection.label_map, collection.ignore)

    def look(pair: Pair) -> _Look:
        image, mask = pair.load()
        if table is not None:
            mask = np.where(table == UNMAPPED, VOID, table).astype(np.uint8)[mask]
        counts = np.bincount(mask.reshape(-1), minlength=VOID + 1)
        return _Look(image.shape, 8 * image.itemsize, counts, _diameters(mask, counts))

    return list(mapped_and_told(look, pairs, "Looking at images", on_progress))


def _numbered(classes: npt.NDArray[np.int16]) -> tuple[str, ...]:
    known = classes[(classes != VOID) & (classes != UNMAPPED)]
    return tuple(str(k) for k in range(int(known.max(initial=-1)) + 1))


def _diameters(labels: Labels, counts: npt.NDArray[np.int64]) -> dict[int, tuple[float, ...]]:
    """Diameters of the connected regions of every value but the commonest."""
    values = np.flatnonzero(counts)
    found = {}
    for value in values[np.argsort(-counts[values])][1:_MOST_VALUES].tolist():
        regions, _ = ndimage.label(labels == value)
        areas: npt.NDArray[np.int64] = np.bincount(regions.reshape(-1))[1:]
        kept = areas[areas >= _SMALLEST_OBJECT_PX]
        found[value] = tuple((2 * np.sqrt(kept / np.pi)).tolist())
    return found
