"""Losses that are means over pixels: cross-entropy and focal loss."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from unetexp.training.losses.base import WeightedLoss
from unetexp.training.losses.masked_batch import MaskedBatch, or_one

_SMALLEST_MISS = 1e-7  # keeps the slope of miss ** gamma finite where gamma < 1


class CrossEntropy(WeightedLoss):
    """Softmax cross-entropy, mean over valid pixels; torch's definition in every option."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of the target that is spread evenly over all classes"
    )

    def _value(self, batch: MaskedBatch) -> Tensor:
        return self.cross_entropy(batch, self.label_smoothing)


class Focal(WeightedLoss):
    """Focal loss on softmax probabilities (Lin et al., arXiv:1708.02002): (1 - p)^gamma (-log p).

    The paper has one sigmoid per anchor and divides by the number of objects; here p is the
    softmax probability of the label, and the (weighted) mean over valid pixels is taken. For two
    classes this is the paper's formula at the difference of the two logits.
    """

    kind: Literal["focal"] = "focal"
    gamma: float = Field(
        2.0,
        ge=0,
        le=10,
        description="how strongly well-classified pixels are down-weighted; 0: not at all",
    )

    def _value(self, batch: MaskedBatch) -> Tensor:
        nll = batch.negative_log_likelihood()
        miss = (-torch.expm1(-nll)).clamp(min=_SMALLEST_MISS)  # 1 - p without cancellation
        weights = self.weights(batch)
        per_pixel = weights[batch.labels.where(batch.valid, 0)]  # void pixels have nll 0
        values = per_pixel * miss**self.gamma * nll
        return values.sum() / or_one((weights * batch.counts).sum())
