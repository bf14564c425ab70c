"""What a plan needs to know about a data set, from a part of its images.

K classes, C channels. Sizes are in pixels of the images as they are stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from unetexp.data import DataSource
from unetexp.data.collection import Collection, Labels, Pair, Progress
from unetexp.data.label_values.label_map import UNMAPPED, value_table
from unetexp.data.labels import VOID
from unetexp.data.threads import mapped_and_told
from unetexp.errors import DataError

MOST_IMAGES = 48  # looked at: enough for quantiles, a few seconds for photographs
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
    chosen = _spread(splits)
    loaded = list(
        mapped_and_told(lambda pair: pair.load(), chosen, "Looking at images", on_progress)
    )
    images = [image for image, _ in loaded]
    labels = _classes(collection, [mask for _, mask in loaded])
    names = collection.class_names or _numbered(labels)
    counts = sum(np.bincount(each.reshape(-1), minlength=VOID + 1) for each in labels)
    assert not isinstance(counts, int)
    labelled = counts[: len(names)]
    if not labelled.any():
        raise DataError(
            f"{collection.where}: no pixel of {len(chosen)} masks belongs to a class: there is "
            "nothing to plan for. Look at the masks, or at data.label_map."
        )
    shares = labelled / labelled.sum()
    return DataFacts(
        images={name: len(members) for name, members in splits.items()},
        looked_at=len(loaded),
        heights=tuple(image.shape[1] for image in images),
        widths=tuple(image.shape[2] for image in images),
        channels=max(image.shape[0] for image in images),
        bits=8 * max(image.itemsize for image in images),
        class_names=tuple(names),
        shares=tuple(shares.tolist()),
        void_share=float(counts[VOID] / counts.sum()),
        diameters=tuple(d for each in labels for d in _diameters(each, int(np.argmax(shares)))),
    )


def _spread(splits: Mapping[str, Sequence[Pair]]) -> list[Pair]:
    """Up to `MOST_IMAGES` pairs, evenly from the train split; from val where train is small."""
    pairs = [*splits["train"], *splits["val"]]
    places = np.unique(np.linspace(0, len(pairs) - 1, min(MOST_IMAGES, len(pairs))).astype(int))
    return [pairs[place] for place in places.tolist()]


def _classes(collection: Collection, masks: Sequence[Labels]) -> list[Labels]:
    """The masks with classes in place of stored values; what no class is known for is void."""
    present = np.zeros(VOID + 1, np.bool_)
    for mask in masks:
        present[np.unique(mask)] = True
    table = value_table(present, collection.label_map, collection.ignore)
    classes: Labels = np.where(table == UNMAPPED, VOID, table).astype(np.uint8)
    return [classes[mask] for mask in masks]


def _numbered(masks: Sequence[Labels]) -> tuple[str, ...]:
    highest = max((int(mask[mask != VOID].max(initial=0)) for mask in masks), default=0)
    return tuple(str(k) for k in range(highest + 1))


def _diameters(labels: Labels, common: int) -> Iterator[float]:
    """Diameters of the connected regions of every class but the `common` one."""
    for k in np.unique(labels).tolist():
        if k in (common, VOID):
            continue
        regions, _ = ndimage.label(labels == k)
        areas: npt.NDArray[np.int64] = np.bincount(regions.reshape(-1))[1:]
        for area in areas[areas >= _SMALLEST_OBJECT_PX].tolist():
            yield float(2 * np.sqrt(area / np.pi))
