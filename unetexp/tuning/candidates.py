"""What thresholds and smallest components would do to each image: confusion matrices to choose by.

I images, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from unetexp.data.labels import VOID
from unetexp.metrics.bootstrap import class_ious, mean_iou
from unetexp.postprocessing.labels import (
    Labels,
    by_number,
    components,
    labels_of,
    replaced,
    shares_of,
)
from unetexp.postprocessing.settings import Postprocessing
from unetexp.tuning.cached import CachedProbabilities

LIMITS = tuple(round(0.05 * step, 2) for step in range(2, 19))  # 0.10 to 0.90
FEWEST_PX = tuple(2**power for power in range(2, 13))  # 4 to 4096
_INNER = 3
_MOST_LOST = 0.002  # of the IoU of a class

Matrices = NDArray[np.int64]  # (I, K, K), rows are the target
Choices = Mapping[tuple[int, float], Matrices]  # by class and value


def confusion(labels: Labels, truth: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """(K, K) of one image, void left out."""
    valid = truth != VOID
    pairs = truth[valid].astype(np.int64) * classes + labels[valid]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def by_thresholds(images: CachedProbabilities, temperature: float, classes: int) -> Choices:
    """For each class but the first, and each limit, the matrices with that threshold alone."""
    found: dict[tuple[int, float], list[NDArray[np.int64]]] = {}
    for index in range(len(images)):
        logits, truth = images[index]
        valid = truth != VOID
        shares, target = shares_of(logits, temperature)[:, valid], truth[valid].astype(np.int64)
        first = shares.argmax(axis=0)
        rest = shares.copy()
        rest[first, np.arange(len(first))] = -1.0
        second = rest.argmax(axis=0)
        for label in range(1, classes):
            others = np.where(first == label, second, first)
            for limit, matrix in _at_limits(shares[label], target, others, label, classes):
                found.setdefault((label, limit), []).append(matrix)
    return {choice: np.stack(matrices) for choice, matrices in found.items()}


def _at_limits(
    share: NDArray[np.float32],
    target: NDArray[np.int64],
    others: NDArray[np.intp],
    label: int,
    classes: int,
) -> Iterator[tuple[float, NDArray[np.int64]]]:
    """The matrix (K, K) at each limit, of pixels (P,), all limits in one pass.

    `others` are the classes that have the pixels where `share`, that of `label`, is below.
    """
    reached = np.searchsorted(np.array(LIMITS, np.float32), share, side="right")
    cells = (reached * classes + target) * classes + others
    shape = len(LIMITS) + 1, classes, classes
    below = np.bincount(cells, minlength=int(np.prod(shape))).reshape(shape).cumsum(axis=0)
    above = (below[-1] - below).sum(axis=2)
    for place, limit in enumerate(LIMITS):
        matrix = below[place].copy()
        matrix[:, label] += above[place]
        yield limit, matrix


def by_sizes(
    images: CachedProbabilities, settings: Postprocessing, names: Sequence[str]
) -> Choices:
    """For each class and smallest size, the matrices, after the other `settings`."""
    found: dict[tuple[int, float], list[NDArray[np.int64]]] = {}
    classes, thresholds = len(names), by_number(settings.thresholds, names)
    for index in range(len(images)):
        logits, truth = images[index]
        shares = shares_of(logits, settings.temperature)
        labels = labels_of(shares, settings, names)
        for label in range(classes):
            areas, sizes = components(labels, label)
            for fewest in FEWEST_PX:
                small = (sizes < fewest)[areas]
                changed = replaced(labels, shares, label, small, thresholds)
                found.setdefault((label, fewest), []).append(confusion(changed, truth, classes))
    return {choice: np.stack(matrices) for choice, matrices in found.items()}


def chosen(
    choices: Choices, usual: Matrices, groups: Sequence[NDArray[np.intp]]
) -> dict[int, float]:
    """For each class the value with the best mIoU, where it is better in every inner fold.

    And where no class pays for it: a model that knows nothing gains mIoU by trading one class for
    another.
    `usual` are the matrices without a choice; `groups` are the inner folds' images.
    """
    every = np.concatenate(groups)
    found: dict[int, float] = {}
    best: dict[int, float] = {}
    parts = [part for part in groups if len(part)]
    for (label, value), matrices in choices.items():
        gains = [mean_iou(matrices[part]) - mean_iou(usual[part]) for part in parts]
        gain = mean_iou(matrices[every]) - mean_iou(usual[every])
        agreed = len(parts) == _INNER and min(gains) > 0
        if agreed and gain > best.get(label, 0.0) and no_class_loses(matrices[every], usual[every]):
            found[label], best[label] = value, gain
    return found


def chance(matrices: Matrices) -> Matrices:
    """Those of as many pixels of each class in each image, put anywhere in it."""
    target, predicted = matrices.sum(axis=2), matrices.sum(axis=1)
    pixels = np.maximum(target.sum(axis=1), 1)
    drawn = target[:, :, None] * predicted[:, None, :] / pixels[:, None, None]
    rounded: Matrices = drawn.round().astype(np.int64)
    return rounded


def no_class_loses(changed: Matrices, usual: Matrices) -> bool:
    """Whether the IoU of every class is kept, but for a fifth of a point."""
    loss = class_ious(usual) - class_ious(changed)
    return not (loss > _MOST_LOST).any()


def inner_folds(places: NDArray[np.intp], units: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """The images in as many parts as must agree, those of a unit (I,) together."""
    _, order = np.unique(units[places], return_inverse=True)
    return [places[order % _INNER == part] for part in range(_INNER)]
