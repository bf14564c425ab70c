"""What the first step of a run really computed with, for the proof of its settings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unetexp.models.weights.resolution import Normalization
from unetexp.training.losses import LossFunction


@dataclass(frozen=True)
class SeenStep:
    """Of one optimiser step on this rank. Shapes and types only: nothing waits for the device."""

    images: int  # in all its micro-batches
    micro_batches: int
    shape: tuple[int, ...]  # (N, C, P, P) of the last micro-batch, as the network gets it
    window_px: int  # side of the windows that its crops were cut from
    logits_dtype: torch.dtype
    auxiliary: int  # further logits, for deep supervision
    loss: LossFunction
    normalization: Normalization
    channels_last: bool  # the layout of its images
    contiguous: bool  # both, where a size of 1 leaves no difference
    gradient_norm: Tensor | None  # () on the device, after clipping
