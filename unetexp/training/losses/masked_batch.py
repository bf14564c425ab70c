"""A batch of logits and masks in the form that all losses use: void pixels set to 0.

Letters: N batch, K classes, H W height and width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from unetexp.compute.on_device import on_host
from unetexp.data.label_tensors import is_integer, stray_pixels
from unetexp.data.labels import VOID
from unetexp.errors import DataError


@dataclass(frozen=True)
class MaskedBatch:
    """A batch in the form that all losses use."""

    logits: Tensor  # (N, K, H, W) float32; 0 at void pixels, and without gradient there
    labels: Tensor  # (N, H, W) int64
    valid: Tensor  # (N, H, W) bool
    spoilt: Tensor | None = None  # () bool: whether a label is no class; None: none is

    @classmethod
    def of(cls, logits: Tensor, mask: Tensor) -> Self:
        """Check and prepare the arguments of a loss; raises DataError for what does not fit."""
        if not logits.is_floating_point() or logits.ndim != 4:
            raise DataError(
                "logits: expected floating point (N, K, H, W), got "
                f"{logits.dtype} {tuple(logits.shape)}."
            )
        expected = logits[:, 0].shape
        if not is_integer(mask) or mask.shape != expected:
            raise DataError(
                f"mask: expected integer labels {tuple(expected)} for logits "
                f"{tuple(logits.shape)}, got {mask.dtype} {tuple(mask.shape)}."
            )
        labels = mask.long()
        stray = stray_pixels(labels, logits.shape[1])
        spoilt = None
        if not on_host(labels):
            labels, spoilt = labels.masked_fill(stray, VOID), stray.any()
        valid = labels != VOID
        return cls(logits.float().where(valid.unsqueeze(1), 0.0), labels, valid, spoilt)

    @cached_property
    def truth(self) -> Tensor:
        """(N, K, H, W) bool: one-hot labels, all False at void pixels."""
        classes = torch.arange(self.logits.shape[1], device=self.labels.device)
        return (self.labels.unsqueeze(1) == classes.view(1, -1, 1, 1)) & self.valid.unsqueeze(1)

    @cached_property
    def counts(self) -> Tensor:
        """(K,) float32: pixels of each class."""
        return sum_over_pixels(self.truth).float()

    @cached_property
    def pixels_around(self) -> Tensor:
        """(K,) float32: valid pixels of the images that contain each class."""
        valid = self.valid.sum(dim=(1, 2)).unsqueeze(1)
        return (self.truth.any(dim=3).any(dim=2) * valid).sum(dim=0).float()

    def probabilities(self) -> Tensor:
        """(N, K, H, W): softmax over the classes, 0 at void pixels."""
        return self.logits.softmax(dim=1) * self.valid.unsqueeze(1)

    def negative_log_likelihood(
        self, weights: Tensor | None = None, label_smoothing: float = 0.0
    ) -> Tensor:
        """(N, H, W): softmax cross-entropy times the label's weight, 0 at void pixels."""
        return F.cross_entropy(
            self.logits,
            self.labels,
            weights,
            ignore_index=VOID,
            reduction="none",
            label_smoothing=label_smoothing,
        )

    def mean_over_present(self, per_class: Tensor) -> Tensor:
        """The mean of the finite values (K,) over the classes that occur, 0 if none does."""
        present = self.counts > 0
        return (per_class * present).sum() / present.sum().clamp(min=1)


def sum_over_pixels(values: Tensor) -> Tensor:
    """(N, K, H, W) -> (K,)."""
    return values.sum(dim=(0, 2, 3))


def or_one(count: Tensor) -> Tensor:
    """`count` as the denominator of a sum that is 0 where `count` is 0."""
    return torch.where(count > 0, count, 1)
