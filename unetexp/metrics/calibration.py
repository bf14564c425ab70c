"""Whether a model's probabilities are right: calibration error and Brier score.

N batch, K classes, H W image size, B bins.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unetexp.data.labels import VOID
from unetexp.errors import DataError

BINS = 15


def expected_calibration_error(
    probabilities: NDArray[np.floating],
    truth: NDArray[np.integer],
    *,
    bins: int = BINS,
    ignore_index: int = VOID,
) -> float:
    """How far confidence and accuracy lie apart: probabilities (K, ...), truth (...); 0 to 1.

    Naeini et al. 2015, Guo et al. 2017 (arXiv:1706.04599): pixels in `bins` equal bins by their
    highest probability; the mean over the bins, weighted by their pixels, of the distance between
    the mean of that probability and the share of right pixels. Void pixels do not count; NaN where
    there are no others. Raises DataError for shapes that do not match.
    """
    sums = _sums_of(probabilities, truth, bins, ignore_index)
    return float(sums[:bins].abs().sum() / sums[-1]) if sums[-1] else math.nan


def brier_score(
    probabilities: NDArray[np.floating], truth: NDArray[np.integer], *, ignore_index: int = VOID
) -> float:
    """The mean squared error of probabilities (K, ...) for the truth (...), smaller is better.

    Brier 1950 (doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2): the squared differences are
    summed over the classes, 0 to 2; for two classes half of that, 0 to 1, as for the probability of
    one of them, and as scikit-learn has it. Void pixels do not count; NaN where there are no
    others. Raises DataError for shapes that do not match.
    """
    sums = _sums_of(probabilities, truth, BINS, ignore_index)
    return float(sums[-2] / sums[-1]) if sums[-1] else math.nan


def _sums_of(
    probabilities: NDArray[np.floating], truth: NDArray[np.integer], bins: int, ignore_index: int
) -> Tensor:
    """`calibration_sums` of one image or of any number of pixels."""
    if probabilities.shape[1:] != truth.shape:
        raise DataError(
            f"probabilities {probabilities.shape}: expected (K, ...) for a truth {truth.shape}."
        )
    given = torch.from_numpy(np.ascontiguousarray(probabilities, np.float64))
    flat = given.reshape(1, len(given), 1, -1)
    labels = torch.from_numpy(np.ascontiguousarray(truth, np.int64)).reshape(1, 1, -1)
    return calibration_sums(flat, labels, bins=bins, ignore_index=ignore_index)[0]


def calibration_sums(
    probabilities: Tensor, truth: Tensor, *, bins: int = BINS, ignore_index: int = VOID
) -> Tensor:
    """What both figures are computed from, (N, B + 2) float64 for each image, on its device.

    For each bin the sum of confidences less the number of right pixels, then the sum of the
    pixels' Brier scores, then their number; they add up over parts and over images. Of
    probabilities (N, K, H, W) and truth (N, H, W).
    """
    images, classes = probabilities.shape[:2]
    valid = truth != ignore_index
    labels = truth.long().where(valid, 0)
    confidence, predicted = probabilities.max(dim=1)
    # bin b holds confidences above b / B, up to (b + 1) / B
    places = (confidence * bins).ceil().long().sub_(1).clamp_(0, bins - 1)
    gaps = (confidence.double() - (predicted == labels).double()).where(valid, 0)
    own = probabilities.gather(1, labels[:, None])[:, 0].double()
    squares = probabilities.double().square().sum(dim=1) - 2 * own + 1
    if classes == 2:
        squares = squares / 2
    sums = torch.zeros(images, bins + 2, dtype=torch.float64, device=probabilities.device)
    sums[:, :bins].scatter_add_(1, places.flatten(1), gaps.flatten(1))
    sums[:, bins] = squares.where(valid, 0).flatten(1).sum(dim=1)
    sums[:, bins + 1] = valid.flatten(1).sum(dim=1)
    return sums
