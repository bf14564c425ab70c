"""Whether single objects are found: panoptic quality and F1 of instances.

Objects are given as their numbers, 0 where there is none, or as a mask, whose connected areas
(pixels that touch at a side or a corner) are the objects.

H W mask size, T objects of the truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetexp.metrics.surface import Mask, require_alike

Objects = NDArray[np.integer]  # (H, W) numbers of objects, 0 none

_TOUCHING = np.ones((3, 3), np.int64)
_MATCHED = 0.5  # an IoU above it has at most one partner


@dataclass(frozen=True)
class ObjectMatches:
    """The objects of the truth and those of the prediction that match them."""

    areas: NDArray[np.int64]  # (T,) pixels of each object
    covered: NDArray[np.int64]  # (T,) of these, predicted as any object
    iou: NDArray[np.float64]  # (T,) with the match, 0 without one
    predicted: int  # objects

    @property
    def found(self) -> int:
        """True positives."""
        return int(np.count_nonzero(self.iou))

    @property
    def missed(self) -> int:
        """False negatives."""
        return len(self.areas) - self.found

    @property
    def false(self) -> int:
        """False positives."""
        return self.predicted - self.found

    @property
    def weight(self) -> float:
        """TP + FP / 2 + FN / 2, which divides both figures."""
        return (len(self.areas) + self.predicted) / 2


def panoptic_quality(truth: Mask | Objects, prediction: Mask | Objects) -> float:
    """The panoptic quality of one class in an image, 0 to 1.

    Kirillov et al. 2019 (arXiv:1801.00868): the sum of the matches' IoU over TP + FP/2 + FN/2. A
    true positive is a pair of objects with an IoU above 0.5. NaN where both are empty, 0 where one
    is. Raises DataError for different shapes.
    """
    matches = match_objects(truth, prediction)
    return float(matches.iou.sum()) / matches.weight if matches.weight else math.nan


def instance_f1(truth: Mask | Objects, prediction: Mask | Objects) -> float:
    """2 TP / (2 TP + FP + FN) of objects, with the pairs of `panoptic_quality`, 0 to 1.

    The recognition quality of Kirillov et al. 2019 (arXiv:1801.00868). NaN where both are empty, 0
    where one is. Raises DataError for different shapes.
    """
    matches = match_objects(truth, prediction)
    return matches.found / matches.weight if matches.weight else math.nan


def match_objects(truth: Mask | Objects, prediction: Mask | Objects) -> ObjectMatches:
    """The pairs of objects (H, W) with an IoU above 0.5, of which no object has two."""
    require_alike(np.asarray(truth), np.asarray(prediction))
    true, predicted = _numbered(np.asarray(truth)), _numbered(np.asarray(prediction))
    true_areas = np.bincount(true.ravel(), minlength=1)
    predicted_areas = np.bincount(predicted.ravel(), minlength=1)
    both = (true > 0) & (predicted > 0)
    pairs, shared = np.unique(
        true[both].astype(np.int64) * len(predicted_areas) + predicted[both], return_counts=True
    )
    rows, columns = np.divmod(pairs, len(predicted_areas))
    union = true_areas[rows] + predicted_areas[columns] - shared
    iou = shared / np.maximum(union, 1)
    matched = iou > _MATCHED
    best = np.zeros(len(true_areas))
    best[rows[matched]] = iou[matched]
    covered = np.bincount(true[both], minlength=len(true_areas))
    return ObjectMatches(true_areas[1:], covered[1:], best[1:], len(predicted_areas) - 1)


def _numbered(objects: NDArray[Any]) -> NDArray[np.int64]:
    """The objects numbered from 1 without gaps."""
    if objects.dtype == bool:
        from scipy import ndimage  # a third of a second

        numbered: NDArray[np.int64] = ndimage.label(objects, _TOUCHING)[0]
        return numbered
    values, numbers = np.unique(objects, return_inverse=True)
    numbers = numbers.reshape(objects.shape)
    return numbers if 0 in values else numbers + 1
