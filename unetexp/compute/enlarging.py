"""Scores of an image that was scaled, brought back to its own size, without torch.

Bilinear, pixel centres on pixel centres, as `compute/upsampling.py` does it in torch.

K classes, H W size of the image, h w working size, b rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 2**25  # of a block's scores

Scores = NDArray[np.float32]


def enlarged(scores: Scores, size: tuple[int, int]) -> Iterator[tuple[slice, Scores]]:
    """The scores (K, h, w) at `size`: rows of the image, and (K, b, W) of them."""
    height, width = size
    step = max(1, _BLOCK_BYTES // (4 * len(scores) * width))
    left, right, across = _neighbours(scores.shape[2], width, slice(0, width))
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        above, below, down = _neighbours(scores.shape[1], height, rows)
        mixed = _mixed(scores[:, above], scores[:, below], down[:, np.newaxis])
        yield rows, _mixed(mixed[:, :, left], mixed[:, :, right], across)


def _neighbours(
    old: int, new: int, places: slice
) -> tuple[NDArray[np.intp], NDArray[np.intp], Scores]:
    """The pixels before and after each of the new `places`, and the second one's share."""
    place = (np.arange(places.start, places.stop) + 0.5) * (old / new) - 0.5
    place = place.clip(0, old - 1)
    before = np.floor(place).astype(np.intp)
    share = (place - before).astype(np.float32)
    return before, np.minimum(before + 1, old - 1), share


def _mixed(first: Scores, second: Scores, share: Scores) -> Scores:
    mixed: Scores = first + (second - first) * share
    return mixed
