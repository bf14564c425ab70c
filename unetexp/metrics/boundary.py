"""Boundary IoU: the IoU of the bands along the inside of two masks' outlines. H W mask size."""

from __future__ import annotations

import math

import numpy as np

from unetexp.metrics.surface import Mask, require_alike

BAND = 0.02  # of the image's diagonal, as in the paper


def boundary_iou(truth: Mask, prediction: Mask, *, dilation_ratio: float = BAND) -> float:
    """The boundary IoU of two masks (H, W), 0 to 1.

    Cheng et al. 2021 (arXiv:2103.16562): the band holds the mask's pixels that are at most
    `dilation_ratio` times the image's diagonal from its outline, rounded to whole pixels and at
    least one, in the chessboard distance; the image's edge is outline. NaN where both masks are
    empty, 0 where one is. Raises DataError for masks of different shapes.
    """
    hits, union = boundary_counts(truth, prediction, dilation_ratio=dilation_ratio)
    return hits / union if union else math.nan


def boundary_counts(
    truth: Mask, prediction: Mask, *, dilation_ratio: float = BAND
) -> tuple[int, int]:
    """Pixels in both bands, and in either one: they add up over the images of a set."""
    truth, prediction = (np.asarray(mask, bool) for mask in (truth, prediction))
    require_alike(truth, prediction)
    width = max(1, round(dilation_ratio * math.hypot(*truth.shape)))
    either = truth | prediction
    rows, columns = (np.flatnonzero(either.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return 0, 0
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    bands = [_band(mask[box], width) for mask in (truth, prediction)]
    return (
        int(np.count_nonzero(bands[0] & bands[1])),
        int(np.count_nonzero(bands[0] | bands[1])),
    )


def _band(mask: Mask, width: int) -> Mask:
    """The pixels of a mask, cut to its box or a larger one, that are near what is outside it."""
    from scipy import ndimage  # a third of a second

    inner = ndimage.minimum_filter(
        mask.astype(np.uint8), size=2 * width + 1, mode="constant", cval=0
    )
    band: Mask = mask & (inner == 0)
    return band
