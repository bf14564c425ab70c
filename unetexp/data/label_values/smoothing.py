"""Whether the values in masks are the edges that smoothing or resizing makes of one object class.

H W mask size.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from unetexp.data.collection import Labels
from unetexp.data.label_values.instances import MaskAt
from unetexp.data.label_values.split_labels import SplitLabels

_BETWEEN = 8  # values between the lowest and the highest, at least
_GAP = 0.5  # of the range: the widest that no value lies in, at most
_FLAT = 0.1  # share of the pixels between that may lie inside an area of one value
_GRADED = 0.8  # share of them that lie beside another value that is not 0
_LOOKED_AT = 8


def looks_smoothed(
    splits: Mapping[str, SplitLabels], pixels: npt.NDArray[np.int64], mask_at: MaskAt
) -> bool:
    """Whether 0 is the most common value, and the others rise in steps from 0 to the highest.

    `pixels` (256,) are those of the values of all `splits`.
    """
    values = np.flatnonzero(pixels)
    if len(values) < _BETWEEN + 2 or values[0] != 0 or pixels.argmax() != 0:
        return False
    if np.diff(values).max() > _GAP * values[-1]:
        return False
    counts = {
        (name, index): int((row > 0).sum())
        for name, split in splits.items()
        for index, row in enumerate(split.counts)
    }
    looked_at = sorted(counts, key=lambda place: -counts[place])[:_LOOKED_AT]
    between, flat, graded = np.sum(
        [_slopes(mask_at(*place), int(values[-1])) for place in looked_at], axis=0
    )
    return bool(between and flat <= _FLAT * between and graded >= _GRADED * between)


def _slopes(mask: Labels, highest: int) -> tuple[int, int, int]:
    """How many pixels hold a value between; how many of them are flat, and how many graded."""
    height, width = mask.shape
    padded = np.pad(mask, 1, mode="edge")
    around = np.stack(
        [
            padded[1 + row : 1 + row + height, 1 + column : 1 + column + width]
            for row in (-1, 0, 1)
            for column in (-1, 0, 1)
            if row or column
        ]
    )
    between = (mask > 0) & (mask < highest)
    flat = between & (around == mask).all(axis=0)
    graded = between & ((around != mask) & (around != 0)).any(axis=0)
    return int(between.sum()), int(flat.sum()), int(graded.sum())
