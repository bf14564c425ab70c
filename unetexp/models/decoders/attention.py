"""Attention on an up block's feature.

Letters: N batch, C channels, H W height and width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Attention = Literal["none", "scse"]

_REDUCTION = 2  # of the channels between the two products, as in the paper


class ScSE(nn.Module):
    """Concurrent spatial and channel squeeze and excitation (Roy et al. 2018, arXiv:1803.02579).

    U s(W1 relu(W2 mean(U))) + U s(w U) with the sigmoid s: the first factor is of a channel, from
    its mean over the image, and the second of a pixel. There are no biases, as in the paper.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // _REDUCTION)
        self.squeeze = nn.Conv2d(channels, hidden, kernel_size=1, bias=False)
        self.excite = nn.Conv2d(hidden, channels, kernel_size=1, bias=False)
        self.pixel = nn.Conv2d(channels, 1, kernel_size=1, bias=False)

    def forward(self, feature: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        means = feature.mean(dim=(2, 3), keepdim=True)
        of_channels = torch.sigmoid(self.excite(self.squeeze(means).relu()))
        of_pixels = torch.sigmoid(self.pixel(feature))
        return feature * (of_channels + of_pixels)


def make_attention(kind: Attention, channels: int) -> nn.Module:
    """A module (N, channels, H, W) -> the same shape, without parameters if the kind is none."""
    return ScSE(channels) if kind == "scse" else nn.Identity()
