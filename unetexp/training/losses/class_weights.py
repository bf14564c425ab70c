"""Weights of classes from the number of their pixels: the rarer a class, the larger its weight.

Once for the training split, in numpy; or for a batch, on its device, where nothing waits for a
GPU: also the median is taken there. K classes.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unetexp.training.losses.masked_batch import or_one

WeightRule = Literal["none", "balanced", "median_frequency", "effective_number"]


def counted_weights(
    rule: WeightRule, counts: NDArray[np.int64], around: NDArray[np.int64], beta: float
) -> list[float]:
    """`batch_weights` of a whole split, in float64."""
    present = counts > 0
    pixels = np.where(present, counts, 1).astype(np.float64)
    if not present.any():
        return [1.0] * len(counts)
    weights = np.ones_like(pixels)
    if rule == "balanced":
        weights = counts.sum() / (present.sum() * pixels)
    elif rule == "median_frequency":
        shares = pixels / np.maximum(around, 1)
        weights = np.median(shares[present]) / shares
    elif rule == "effective_number":
        weights = 1 / -np.expm1(pixels * math.log(beta))
        weights = weights * (present.sum() / weights[present].sum())
    return [float(weight) for weight in np.where(present, weights, 1.0)]


def batch_weights(rule: WeightRule, counts: Tensor, around: Tensor, beta: float) -> Tensor:
    """Weights (K,) from `counts` (K,), floating, the pixels of each class without void.

    `around` (K,): the pixels, without void, of the images that contain the class. A class without
    pixels has weight 1. `beta` is that of `effective_number`.
    """
    present = counts > 0
    if rule == "balanced":
        weights = _balanced(counts, present)
    elif rule == "median_frequency":
        weights = _median_frequency(or_one(counts) / or_one(around), present)
    elif rule == "effective_number":
        weights = _effective_number(counts, present, beta)
    else:
        return torch.ones_like(counts)
    return torch.where(present, weights, 1.0)


def _balanced(counts: Tensor, present: Tensor) -> Tensor:
    """As scikit-learn's `balanced`: n / (classes that occur * count)."""
    return counts.sum() / (present.sum() * or_one(counts))


def _median_frequency(shares: Tensor, present: Tensor) -> Tensor:
    """Median of the classes' shares of the images that contain them, over a class's own.

    Eigen and Fergus, arXiv:1411.4734. Unlike `balanced`, a class does not weigh more because few
    images have it.
    """
    last = (present.sum() - 1).clamp(min=0)
    ordered = shares.where(present, math.inf).sort().values
    middle = ordered.gather(0, torch.stack((last // 2, last - last // 2)))  # one or two of them
    return middle.mean() / shares


def _effective_number(counts: Tensor, present: Tensor, beta: float) -> Tensor:
    """(1 - beta) / (1 - beta^n), with mean 1 over the classes that occur.

    Cui et al., Class-balanced loss, arXiv:1901.05555; there n counts images, here pixels.
    """
    # Through expm1: with beta near 1 the difference 1 - beta^n has no digits left in float32.
    weights = 1 / -torch.expm1(or_one(counts) * math.log(beta))
    total = weights.where(present, 0.0).sum()
    return weights * present.sum() / or_one(total)
