"""The uncertainty of metrics: bootstrap over the images of a split.

A resample draws as many images as there are, with replacement, and computes the metrics of their
joint confusion matrix. Intervals are the middle 95 % of the resamples (the
percentile method of Efron and Tibshirani 1993, doi:10.1201/9780429246593). They cover the
choice of images, not the seed of training.

I images, K classes, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unetexp.errors import DataError

Floats = NDArray[np.float64]
Matrices = NDArray[np.integer]  # (I, K, K), rows are the target

REPEATS = 2000
_OUTSIDE = (2.5, 97.5)  # percent
_DRAWS_AT_ONCE = 2**21


@dataclass(frozen=True)
class Interval:
    """A metric and its 95 % interval; the bounds are NaN if there is a single image."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedComparison:
    """By how much one model beats another on the same images."""

    difference: Interval
    probability: float  # share of the resamples in which the first is better, ties count half

    @property
    def tie(self) -> bool:
        """Whether the interval leaves open which of the two is better."""
        return not (self.difference.low > 0 or self.difference.high < 0)


@dataclass(frozen=True)
class _PixelCounts:
    """The counts behind the metrics; exact whole numbers as float64."""

    hits: Floats  # (..., K) the diagonal
    target: Floats  # (..., K) pixels of the class
    predicted: Floats  # (..., K) pixels predicted as the class

    def metrics(self) -> dict[str, Floats]:
        """miou, dice, pixel_accuracy and iou/<index>, (...) each; NaN where undefined."""
        sizes = self.target + self.predicted
        iou = _ious(self)
        with np.errstate(invalid="ignore", divide="ignore"):
            dice = 2 * self.hits / sizes
            accuracy = self.hits.sum(axis=-1) / self.target.sum(axis=-1)
        return {
            "miou": _mean_of_present(iou),
            "dice": _mean_of_present(dice),
            "pixel_accuracy": accuracy,
            **{f"iou/{k}": iou[..., k] for k in range(iou.shape[-1])},
        }


def score_intervals(
    matrices: Matrices, repeats: int = REPEATS, seed: int = 0
) -> dict[str, Interval]:
    """Intervals of a model's metrics from one confusion matrix (K, K) per image.

    The names are miou, dice, pixel_accuracy and iou/<index>. Resamples in which a
    metric is undefined are left out of its interval. Raises DataError if there is no image.
    """
    counts = _pixel_counts(matrices)
    resampled = [drawn.metrics() for (drawn,) in _resamples([counts], repeats, seed)]
    return {
        name: interval_of(float(value), np.concatenate([part[name] for part in resampled]))
        for name, value in _whole(counts).metrics().items()
    }


def compare_paired(
    a: Matrices, b: Matrices, repeats: int = REPEATS, seed: int = 0, *, metric: str = "miou"
) -> PairedComparison:
    """mIoU, or another `metric`, of `a` minus that of `b`, for the same images in the same order.

    The metrics are miou, dice, pixel_accuracy and iou/<index>.

    Both use the same resamples, so images that are hard for both cancel out. Raises DataError if
    the number of images or classes differs.
    """
    if a.shape != b.shape:
        raise DataError(
            f"confusion matrices {a.shape} and {b.shape} cannot be compared: both models must "
            "have been evaluated on the same images and classes."
        )
    pair = [_pixel_counts(a), _pixel_counts(b)]
    first, second = (_whole(counts).metrics()[metric] for counts in pair)
    differences = np.concatenate(
        [
            drawn_a.metrics()[metric] - drawn_b.metrics()[metric]
            for drawn_a, drawn_b in _resamples(pair, repeats, seed)
        ]
    )
    known = differences[~np.isnan(differences)]
    better = (np.count_nonzero(known > 0) + np.count_nonzero(known == 0) / 2) / max(len(known), 1)
    return PairedComparison(
        difference=interval_of(float(first - second), differences),
        probability=float(better) if len(known) else math.nan,
    )


def mean_iou(matrices: Matrices) -> float:
    """The mean IoU of all images together; NaN where no class occurs."""
    return float(_whole(_pixel_counts(matrices)).metrics()["miou"])


def class_ious(matrices: Matrices) -> Floats:
    """The IoU of each class (K,) over all images together; NaN where it does not occur."""
    return _ious(_whole(_pixel_counts(matrices)))


def _ious(counts: _PixelCounts) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        ious: Floats = counts.hits / (counts.target + counts.predicted - counts.hits)
    return ious


def _pixel_counts(matrices: Matrices) -> _PixelCounts:
    """(I, K) of confusion matrices (I, K, K)."""
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2] or not matrices.size:
        raise DataError(
            f"confusion matrices: expected one (K, K) per image and at least one image, got an "
            f"array {matrices.shape}."
        )
    return _PixelCounts(
        hits=np.diagonal(matrices, axis1=1, axis2=2).astype(np.float64),
        target=matrices.sum(axis=2).astype(np.float64),
        predicted=matrices.sum(axis=1).astype(np.float64),
    )


def _whole(counts: _PixelCounts) -> _PixelCounts:
    """(I, K) -> (K): the sum over the images."""
    return _PixelCounts(*(part.sum(axis=0) for part in _parts(counts)))


def _resamples(models: list[_PixelCounts], repeats: int, seed: int) -> Iterator[list[_PixelCounts]]:
    """Each model's counts (R, K) in the same resamples, in chunks of resamples."""
    for weights in resamples(len(models[0].hits), repeats, seed):
        yield [_PixelCounts(*(weights @ part for part in _parts(counts))) for counts in models]


def resamples(images: int, repeats: int = REPEATS, seed: int = 0) -> Iterator[Floats]:
    """How often each image is in each resample (R, I), in chunks of resamples.

    Sums over a resample's images are then a matrix product. One image has no resamples.
    """
    if images < 2:
        repeats = 0  # all resamples would be equal: there is no interval
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // images)
    for start in range(0, max(repeats, 1), at_once):
        rows = min(at_once, repeats - start)
        drawn = generator.integers(images, size=(rows, images))
        drawn += np.arange(rows)[:, np.newaxis] * images
        times = np.bincount(drawn.reshape(-1), minlength=rows * images).reshape(rows, images)
        yield times.astype(np.float64)


def _parts(counts: _PixelCounts) -> tuple[Floats, Floats, Floats]:
    return counts.hits, counts.target, counts.predicted


def _mean_of_present(values: Floats) -> Floats:
    """Mean over the last axis without NaN; NaN where all are."""
    present = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(present, values, 0).sum(axis=-1) / present.sum(axis=-1)
    return mean


def interval_of(value: float, resampled: Floats) -> Interval:
    """A value with the interval of its resamples, those left out in which it is NaN."""
    known = resampled[~np.isnan(resampled)]
    if not len(known):
        return Interval(value, math.nan, math.nan)
    low, high = np.percentile(known, _OUTSIDE)
    return Interval(value, float(low), float(high))
