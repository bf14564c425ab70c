"""clDice: whether thin structures are whole and connected. H W mask size."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from unetexp.metrics.surface import Mask, require_alike


class Centrelines(NamedTuple):
    """Pixels of the two skeletons, and how many of them the other mask covers."""

    truth: int
    truth_covered: int
    prediction: int
    prediction_covered: int

    @property
    def dice(self) -> float:
        """See `cl_dice`."""
        if not self.truth and not self.prediction:
            return math.nan
        if not self.truth_covered or not self.prediction_covered:
            return 0.0
        precision = self.prediction_covered / self.prediction
        sensitivity = self.truth_covered / self.truth
        return 2 * precision * sensitivity / (precision + sensitivity)


def cl_dice(truth: Mask, prediction: Mask) -> float:
    """The centreline Dice of two masks (H, W), 0 to 1, for vessels, roads, cracks and the like.

    Shit et al. 2021 (arXiv:2003.07311): the harmonic mean of topology precision, the share of the
    prediction's skeleton inside the truth, and topology sensitivity, the share of the truth's
    skeleton inside the prediction. Skeletons are scikit-image's, as in the authors' code. NaN where
    both masks are empty, 0 where one is. Raises DataError for masks of different shapes.
    """
    return centrelines(truth, prediction).dice


def centrelines(truth: Mask, prediction: Mask) -> Centrelines:
    """What `cl_dice` is computed from."""
    truth, prediction = (np.asarray(mask, bool) for mask in (truth, prediction))
    require_alike(truth, prediction)
    return Centrelines(*_covered(truth, prediction), *_covered(prediction, truth))


def _covered(mask: Mask, other: Mask) -> tuple[int, int]:
    """Pixels of the skeleton of `mask`, and those of them in `other`."""
    if not mask.any():
        return 0, 0
    from skimage.morphology import skeletonize  # half a second

    skeleton = skeletonize(mask)
    return int(np.count_nonzero(skeleton)), int(np.count_nonzero(skeleton & other))
