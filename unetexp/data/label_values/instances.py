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
_LOOKED_AT = 8


def instance_problems(
    splits: Mapping[str, SplitLabels], mask_at: MaskAt, ignore: str | None = None
) -> list[str]:
    """Why no model should be trained on values that count the objects of each mask from 1 up.

    `splits` do not count what `ignore` makes void.
    """
    numbers = {  # of each mask that shows anything: the largest value, and how many there are
        (name, index): (int(held.max()), len(held))
        for name, split in splits.items()
        for index, row in enumerate(split.counts[:, 1:VOID] > 0)
        if len(held := np.flatnonzero(row) + 1)
    }
    if not numbers:
        return []
    most = {place: count for place, (_, count) in numbers.items()}
    counted_up = np.mean([largest == count for largest, count in numbers.values()])
    if max(most.values()) < _MANY or len(set(most.values())) < 2 or counted_up < _COUNTED_UP:
        return []
    void = (0, VOID, *np.flatnonzero(ignored_values(ignore)).tolist())
    largest = sorted(most, key=lambda place: -most[place])[:_LOOKED_AT]
    if np.mean([_connected(mask_at(*place), void) for place in largest]) < _CONNECTED:
        return []
    low, high = min(most.values()), max(most.values())
    example = splits[largest[0][0]].mask_files[largest[0][1]]
    values = [0, *range(1, max(number for number, _ in numbers.values()) + 1)]
    return [
        f"the masks look like numbers of objects, not of classes: each counts up from 1, to {low} "
        f"in one and to {high} in another ({example}), and each number is one connected area. "
        f"{both_readings(values, ignore)}"
    ]


def _connected(mask: Labels, void: Sequence[int]) -> float:
    """The share of the values, those of `void` left out, whose pixels are one area."""
    from scipy import ndimage  # a third of a second, for these masks only

    areas = 0
    values = [int(value) for value in np.unique(mask) if value not in void]
    box: npt.NDArray[np.int64] = np.ones((3, 3), np.int64)
    for value in values:
        areas += int(ndimage.label(mask == value, box)[1] == 1)
    return areas / max(len(values), 1)
