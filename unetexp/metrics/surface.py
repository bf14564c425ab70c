"""How far apart the outlines of two masks are: Hausdorff distance and normalised surface Dice.

An outline has one of two forms:

- `pixels`: the pixels of the mask with a neighbour (above, below, left, right) outside it, each
  counted once, as MONAI has it. Distances are between their centres.
- `contours`: the corners between pixels that the outline passes, each weighted by the length of the
  line through it (marching squares), as DeepMind's surface-distance has it. Nearer to the true
  outline where it is slanted or where pixels are not square (arXiv:2410.02630).

On outlines along the pixel grid both give the same distances. What lies beyond the image's edge is
outside the mask.

H W mask size in pixels, E elements of an outline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unetexp.errors import DataError

Mask: TypeAlias = NDArray[np.bool_]
Floats: TypeAlias = NDArray[np.float64]
Spacing: TypeAlias = tuple[float, float]
Outline: TypeAlias = Literal["pixels", "contours"]

SQUARE: Spacing = (1.0, 1.0)  # of a pixel: distances are then in pixels
_ROUNDING = 1e-9  # three pixels of 0.1 mm are within 0.3 mm
_CORNERS = np.array([[8, 4], [2, 1]])  # the code of a corner: which of its four pixels are inside


@dataclass(frozen=True)
class SurfaceDistances:
    """From each element of either outline to the other one; nothing where both masks are empty."""

    from_truth: Floats  # (E,)
    from_prediction: Floats  # (E',)
    truth_weights: Floats  # (E,): 1 each, or lengths
    prediction_weights: Floats  # (E',)
    outline: Outline
    diagonal: float  # of the image, in the unit of the distances

    @property
    def both_empty(self) -> bool:
        return not len(self.from_truth) and not len(self.from_prediction)

    @property
    def one_empty(self) -> bool:
        return (len(self.from_truth) == 0) != (len(self.from_prediction) == 0)

    def hausdorff(self, percent: float = 95.0) -> float:
        """The larger one of the two outlines' percentiles; see `hausdorff95`."""
        if self.both_empty:
            return math.nan
        if self.one_empty:
            return self.diagonal
        if self.outline == "pixels":
            both = (self.from_truth, self.from_prediction)
            return max(float(np.percentile(distances, percent)) for distances in both)
        return max(
            _weighted_percentile(self.from_truth, self.truth_weights, percent),
            _weighted_percentile(self.from_prediction, self.prediction_weights, percent),
        )

    def dice(self, tolerance: float) -> float:
        """See `normalized_surface_dice`."""
        if self.both_empty:
            return math.nan
        if self.one_empty:
            return 0.0
        reach = tolerance * (1 + _ROUNDING)
        near = self.truth_weights[self.from_truth <= reach].sum()
        near += self.prediction_weights[self.from_prediction <= reach].sum()
        return float(near / (self.truth_weights.sum() + self.prediction_weights.sum()))


def hausdorff95(
    truth: Mask, prediction: Mask, spacing: Spacing = SQUARE, *, outline: Outline = "pixels"
) -> float:
    """The 95 % Hausdorff distance of two masks (H, W), in the unit of `spacing`.

    max(P95 of d(t, P) over the outline of the truth, P95 of d(p, T) over that of the prediction)
    (Huttenlocher et al. 1993, doi:10.1109/34.232073, with a percentile for the maximum). `spacing`
    is (height, width) of a pixel; 1 and 1: pixels. NaN where both masks are empty; where one is,
    the image's diagonal, so that no prediction wins by leaving an object out. Raises DataError for
    masks of different shapes.

    Where neither is empty, `pixels` is MONAI's `compute_hausdorff_distance(percentile=95)` and
    `contours` surface-distance's `compute_robust_hausdorff(..., 95)`.
    """
    return surface_distances(truth, prediction, spacing, outline=outline).hausdorff()


def normalized_surface_dice(
    truth: Mask,
    prediction: Mask,
    tolerance: float,
    spacing: Spacing = SQUARE,
    *,
    outline: Outline = "pixels",
) -> float:
    """The share of both outlines that lies within `tolerance` of the other one, 0 to 1.

    Nikolov et al. 2021 (doi:10.2196/26151), for masks (H, W); `tolerance` is in the unit of
    `spacing`. NaN where both masks are empty, 0 where one is. Raises DataError for masks of
    different shapes.

    Where neither is empty, `pixels` is MONAI's `compute_surface_dice`, `contours` the same with
    `use_subvoxels` and surface-distance's `compute_surface_dice_at_tolerance`.
    """
    return surface_distances(truth, prediction, spacing, outline=outline).dice(tolerance)


def surface_distances(
    truth: Mask, prediction: Mask, spacing: Spacing = SQUARE, *, outline: Outline = "pixels"
) -> SurfaceDistances:
    """What both figures are computed from, with one distance transform for each mask."""
    truth, prediction = (np.asarray(mask, bool) for mask in (truth, prediction))
    require_alike(truth, prediction)
    diagonal = math.hypot(*(n * size for n, size in zip(truth.shape, spacing, strict=True)))
    either = truth | prediction
    rows, columns = (np.flatnonzero(either.any(axis=axis)) for axis in (1, 0))
    none = np.zeros(0)
    if not len(rows):
        return SurfaceDistances(none, none, none, none, outline, diagonal)
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    own, other = (_outline(np.pad(mask[box], 1), spacing, outline) for mask in (truth, prediction))
    to_prediction, to_truth = _between(own[0], other[0], spacing)
    return SurfaceDistances(to_prediction, to_truth, own[1], other[1], outline, diagonal)


def require_alike(truth: NDArray[np.generic], prediction: NDArray[np.generic]) -> None:
    """DataError unless both are masks (H, W) of one shape."""
    if truth.shape != prediction.shape or truth.ndim != 2:
        raise DataError(
            f"truth {truth.shape} and prediction {prediction.shape}: expected two masks (H, W) of "
            "the same shape."
        )


def _outline(mask: Mask, spacing: Spacing, form: Outline) -> tuple[Mask, Floats]:
    """Where the elements are, and their weights (E,), of a mask with a margin of one pixel."""
    if form == "pixels":
        inner = mask.copy()
        inner[1:-1] &= mask[:-2] & mask[2:]
        inner[:, 1:-1] &= mask[:, :-2] & mask[:, 2:]
        found = mask & ~inner
        return found, np.ones(np.count_nonzero(found))
    code = np.zeros((mask.shape[0] - 1, mask.shape[1] - 1), np.uint8)
    for (row, column), value in np.ndenumerate(_CORNERS):
        height, width = code.shape
        code += mask[row : row + height, column : column + width] * np.uint8(value)
    lengths = _lengths(spacing)[code]
    found = (code != 0) & (code != 15)
    return found, lengths[found]


def _lengths(spacing: Spacing) -> Floats:
    """The length of the line through a corner, by its code (16,)."""
    height, width = spacing
    slanted = 0.5 * math.hypot(height, width)
    lengths = np.zeros(16)
    lengths[[1, 2, 4, 8, 7, 11, 13, 14]] = slanted  # one of the four pixels differs
    lengths[[3, 12]] = width  # the upper two differ from the lower two
    lengths[[5, 10]] = height
    lengths[[6, 9]] = 2 * slanted
    return lengths


def _between(truth: Mask, prediction: Mask, spacing: Spacing) -> tuple[Floats, Floats]:
    """From each element of the truth's outline to the prediction's, and back; inf to none."""
    from scipy import ndimage  # a third of a second

    to_truth, to_prediction = (
        ndimage.distance_transform_edt(~marks, sampling=spacing)
        if marks.any()
        else np.full(marks.shape, np.inf)
        for marks in (truth, prediction)
    )
    return to_prediction[truth], to_truth[prediction]


def _weighted_percentile(distances: Floats, weights: Floats, percent: float) -> float:
    """The first of the sorted distances at which `percent` of all weight is reached."""
    order = np.argsort(distances, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    place = int(np.searchsorted(share, percent / 100))
    return float(distances[order][min(place, len(order) - 1)])
