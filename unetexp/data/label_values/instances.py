"""Whether the values in masks look like the numbers of objects and not like those of classes.

H W mask size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from unetexp.data.collection import Labels
from unetexp.data.label_values.label_map import ignored_values
from unetexp.data.label_values.mask_coding import both_readings
from unetexp.data.label_values.split_labels import SplitLabels
from unetexp.data.labels import VOID

MaskAt = Callable[[str, int], Labels]  # the mask (H, W) of a split, by its index there

_MANY = 6  # classes that are counted up from 1 in one mask are fewer
_COUNTED_UP = 0.8  # share of the masks that hold 1 to n without a gap
_CONNECTED = 0.9  # share of the values whose pixels are one area
_MANY_WIDE, _MASKS_WIDE = 3, 4  # of 16 bits, which seldom hold classes: all must be as said above
_LOOKED_AT = 8

Place = tuple[str, int]  # a mask: its split, and its index there


def instance_problems(
    splits: Mapping[str, SplitLabels], mask_at: MaskAt, ignore: str | None, *, wide: bool
) -> list[str]:
    """Why no model should be trained on values that count the objects of each mask from 1 up.

    `splits` do not count what `ignore` makes void; `wide` if values have more than 8 bits.
    """
    held = _held(splits)
    most = {place: len(values) for place, values in held.items()}
    if not held or len(set(most.values())) < 2:
        return []
    counted_up = np.mean([int(values.max()) == len(values) for values in held.values()])
    few = max(most.values()) < _MANY
    if few and not (wide and max(most.values()) >= _MANY_WIDE and len(held) >= _MASKS_WIDE):
        return []
    if counted_up < (1 if few else _COUNTED_UP):
        return []
    if _share_connected(held, mask_at, ignore) < (1 if few else _CONNECTED):
        return []
    low, high = min(most.values()), max(most.values())
    split, index = max(most, key=lambda place: most[place])
    example = splits[split].mask_files[index]
    values = [0, *range(1, int(max(found.max() for found in held.values())) + 1)]
    return [
        f"the masks look like numbers of objects, not of classes: each counts up from 1, to {low} "
        f"in one and to {high} in another ({example}), and each number is one connected area. "
        f"{both_readings(values, ignore)}"
    ]


def may_be_objects(splits: Mapping[str, SplitLabels], mask_at: MaskAt, ignore: str | None) -> bool:
    """Whether each value is one area, and masks differ in how many values they hold."""
    held = _held(splits)
    counts = {len(values) for values in held.values()}
    if len(counts) < 2 or max(counts) < _MANY_WIDE:
        return False
    return _share_connected(held, mask_at, ignore) >= _CONNECTED


def _held(splits: Mapping[str, SplitLabels]) -> dict[Place, npt.NDArray[np.int64]]:
    """The values of each mask that shows anything, 0 and 255 left out."""
    return {
        (name, index): found
        for name, split in splits.items()
        for index, row in enumerate(split.counts[:, 1:VOID] > 0)
        if len(found := np.flatnonzero(row) + 1)
    }


def _share_connected(
    held: Mapping[Place, npt.NDArray[np.int64]], mask_at: MaskAt, ignore: str | None
) -> float:
    """The share of the values that are one area, in the masks with the most of them."""
    void = (0, VOID, *np.flatnonzero(ignored_values(ignore)).tolist())
    looked_at = sorted(held, key=lambda place: -len(held[place]))[:_LOOKED_AT]
    return float(np.mean([_connected(mask_at(*place), void) for place in looked_at]))


def _connected(mask: Labels, void: Sequence[int]) -> float:
    """The share of the values, those of `void` left out, whose pixels are one area."""
    from scipy import ndimage  # a third of a second, for these masks only

    areas = 0
    values = [int(value) for value in np.unique(mask) if value not in void]
    box: npt.NDArray[np.int64] = np.ones((3, 3), np.int64)
    for value in values:
        areas += int(ndimage.label(mask == value, box)[1] == 1)
    return areas / max(len(values), 1)
