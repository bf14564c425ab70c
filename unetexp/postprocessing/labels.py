"""Labels from probabilities: thresholds, then smallest components.

K classes, H W image size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from unetexp.errors import UserError
from unetexp.postprocessing.settings import Postprocessing

Scores = NDArray[np.float32]
Labels = NDArray[np.uint8]


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
    index = {name: number for number, name in enumerate(class_names)}
    thresholds = {index[name]: limit for name, limit in settings.thresholds.items()}
    labels = thresholded(shares, thresholds)
    for name, fewest in settings.minimum_px.items():
        labels = without_small(labels, shares, index[name], fewest)
    return labels


def thresholded(shares: Scores, thresholds: Mapping[int, float]) -> Labels:
    """The labels (H, W) by thresholds alone, given by class."""
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


def without_small(labels: Labels, shares: Scores, label: int, fewest: int) -> Labels:
    """Labels whose connected areas of `label` have at least `fewest` pixels."""
    areas, sizes = components(labels, label)
    small = (sizes < fewest)[areas]
    return replaced(labels, shares, label, small)


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


def replaced(labels: Labels, shares: Scores, label: int, where: NDArray[np.bool_]) -> Labels:
    """Labels with the most probable of the other classes at the pixels `where`."""
    if not where.any():
        return labels
    others = shares[:, where]
    others[label] = -1.0
    changed = labels.copy()
    changed[where] = others.argmax(axis=0)
    return changed
