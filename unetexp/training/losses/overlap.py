"""Losses of the overlap of prediction and truth: Dice, Tversky, and their sums with others."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from unetexp.training.losses.base import LossComponent, WeightedLoss
from unetexp.training.losses.masked_batch import MaskedBatch, or_one, sum_over_pixels


class BceDice(LossComponent):
    """One-vs-rest binary cross-entropy plus the `dice` loss.

    The first term reads the logits as K independent sigmoids: mean over valid pixels, then over
    the classes that occur.
    """

    kind: Literal["bce_dice"] = "bce_dice"

    def _value(self, batch: MaskedBatch) -> Tensor:
        values = F.binary_cross_entropy_with_logits(
            batch.logits, batch.truth.float(), reduction="none"
        )
        sums = sum_over_pixels(values * batch.valid.unsqueeze(1))
        bce = batch.mean_over_present(sums / or_one(batch.valid.sum()))
        return bce + _dice(batch)


class Dice(LossComponent):
    """Soft Dice on softmax probabilities (Milletari et al., V-Net, arXiv:1606.04797).

    1 - 2 sum(p t) / (sum(p) + sum(t)), sums over the pixels of the whole batch, mean over the
    classes that occur. Unlike V-Net, p and t are not squared; as a class that occurs has
    sum(t) >= 1, no smoothing term is needed.
    """

    kind: Literal["dice"] = "dice"

    def _value(self, batch: MaskedBatch) -> Tensor:
        return _dice(batch)


class DiceCE(WeightedLoss):
    """Cross-entropy (weighted on request) plus the `dice` loss, as in nnU-Net."""

    kind: Literal["dice_ce"] = "dice_ce"

    def _value(self, batch: MaskedBatch) -> Tensor:
        return self.cross_entropy(batch, label_smoothing=0.0) + _dice(batch)


class Tversky(LossComponent):
    """Tversky loss (Salehi et al., arXiv:1706.05721): 1 - TP / (TP + alpha FP + beta FN).

    Soft counts of softmax probabilities over the whole batch, mean over the classes that occur.
    alpha = beta = 0.5 is the `dice` loss.
    """

    kind: Literal["tversky"] = "tversky"
    alpha: float = Field(0.3, ge=0, le=10, description="weight of false positives")
    beta: float = Field(0.7, ge=0.01, le=10, description="weight of false negatives")

    def _value(self, batch: MaskedBatch) -> Tensor:
        return _tversky(batch, self.alpha, self.beta)


def _tversky(batch: MaskedBatch, alpha: float, beta: float) -> Tensor:
    probabilities = batch.probabilities()
    hits = sum_over_pixels(probabilities * batch.truth)
    false_positives = sum_over_pixels(probabilities) - hits
    misses = batch.counts - hits
    size = hits + alpha * false_positives + beta * misses
    return batch.mean_over_present(1 - hits / torch.where(batch.counts > 0, size, 1))


def _dice(batch: MaskedBatch) -> Tensor:
    return _tversky(batch, 0.5, 0.5)
