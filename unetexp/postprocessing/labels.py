"""Labels from probabilities: thresholds, then smallest components.

K classes, H W image size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from unetexp.errors import UserError, not_a_choice
from unetexp.postprocessing.settings import Postprocessing

Scores = NDArray[np.float32]
Labels = NDArray[np.uint8]
T = TypeVar("T")


def shares_of(logits: Scores, temperature: float = 1.0) -> Scores:
    """Logits (K, H, W) -> probabilities that sum to 1, of logits divided by the temperature."""
    scaled = logits if temperature == 1.0 else logits / np.float32(temperature)
    exponents = np.exp(scaled - scaled.max(axis=0))
    shares: Scores = exponents / exponents.sum(axis=0)
    return shares


def labels_of(shares: Scores, settings: Postprocessing, class_names: Sequence[str]) -> Labels:
    """Probabilities (K, H, W), with their temperature applied -> labels (H, W) uint8.

    `class_names` are in the order of the classes. Raises UserError where components have to be
    found and SciPy is not installed.
    """
    thresholds = by_number(settings.thresholds, class_names)
    labels = thresholded(shares, thresholds)
    for label, fewest in by_number(settings.minimum_px, class_names).items():
        areas, sizes = components(labels, label)
        labels = replaced(labels, shares, label, (sizes < fewest)[areas], thresholds)
    return labels


def by_number(values: Mapping[str, T], class_names: Sequence[str]) -> dict[int, T]:
    """Values by class name -> by the class's number; UserError for a class that there is not."""
    for name in values:
        if name not in class_names:
            raise UserError(not_a_choice("postprocessing: class", name, list(class_names)))
    return {class_names.index(name): value for name, value in values.items()}


def thresholded(shares: Scores, thresholds: Mapping[int, float]) -> Labels:
    """Probabilities (K, ...) -> labels (...) by thresholds alone, given by class."""
    if not thresholds:
        highest: Labels = shares.argmax(axis=0).astype(np.uint8)
        return highest
    held = np.full(shares.shape, -1.0, np.float32)
    others = shares.copy()
    for label, limit in thresholds.items():
        factor = shares[label] / np.float32(limit)
        held[label] = np.where(factor >= 1, factor, -1.0)
        others[label] = -1.0
    reached = held.max(axis=0) >= 1
    if len(thresholds) == len(shares):  # nobody may have the rest: the most probable has it
        others = shares
    labels: Labels = np.where(reached, held.argmax(axis=0), others.argmax(axis=0)).astype(np.uint8)
    return labels


def components(labels: Labels, label: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The number of each pixel's connected area of `label` (H, W), and the size of each.

    Area 0 is all the rest, whose size counts as endless.
    """
    try:
        from scipy import ndimage  # a server of exported files may do without
    except ImportError:
        raise UserError(
            "this model removes small areas (its postprocessing), which needs scipy. Install it: "
            "pip install scipy"
        ) from None
    areas, _ = ndimage.label(labels == label, structure=np.ones((3, 3)))
    sizes = np.bincount(areas.ravel())
    sizes[0] = np.iinfo(np.int64).max
    return areas, sizes


def replaced(
    labels: Labels,
    shares: Scores,
    label: int,
    where: NDArray[np.bool_],
    thresholds: Mapping[int, float],
) -> Labels:
    """Labels with what the pixels `where` have without `label`, by the same thresholds."""
    if not where.any():
        return labels
    others = shares[:, where]
    others[label] = 0.0
    changed = labels.copy()
    changed[where] = thresholded(others, thresholds)
    return changed
