"""Features of several strides from the single map of a plain Vision Transformer.

Letters: N batch, D channels of the map, H W height and width of the image, P stride of the map.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from unetexp.models.layout import is_channels_last


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, D, H, W) -> (N, D, H, W), in the same layout."""
        feature = super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return feature if is_channels_last(input) else feature.contiguous()


class SimpleFeaturePyramid(nn.Module):
    """The last map of a plain Vision Transformer at strides 4, 8, 16 and 32.

    Exploring Plain Vision Transformer Backbones for Object Detection, Li et al. 2022
    (arXiv:2203.16527): transposed convolutions for strides below the map's, the map itself at its
    own, max pooling above. As there, a doubling halves the channels, with layer norm and GELU
    between two doublings. Unlike there, no 1x1 and 3x3 convolutions bring all levels to 256
    channels, for the decoder's up blocks convolve them; and the transformer before it attends to
    the whole image in each block, as it was trained, without windows.
    """

    strides: ClassVar[tuple[int, ...]] = (4, 8, 16, 32)

    def __init__(self, channels: int, stride: int) -> None:
        """Random weights for a map of D `channels`, a multiple of 8, and P `stride`: 8, 16, 32."""
        super().__init__()
        doublings = [int(math.log2(max(1, stride // level))) for level in self.strides]
        self.channels = tuple(channels // 2**count for count in doublings)
        self.levels = nn.ModuleList(
            _upsample(channels, count) if count else _pool(level // stride)
            for level, count in zip(self.strides, doublings, strict=True)
        )

    def forward(self, feature: Tensor) -> list[Tensor]:
        """(N, D, H / P, W / P) -> for each stride (N, channels[i], H / stride, W / stride)."""
        return [level(feature) for level in self.levels]


def _upsample(channels: int, doublings: int) -> nn.Sequential:
    """(N, D, H, W) -> (N, D / 2**doublings, 2**doublings H, 2**doublings W)."""
    layers: list[nn.Module] = []
    for number in range(doublings):
        if number:
            layers += [ChannelNorm(channels), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2))
        channels //= 2
    return nn.Sequential(*layers)


def _pool(factor: int) -> nn.Module:
    return nn.MaxPool2d(factor) if factor > 1 else nn.Identity()


def resample(feature: Tensor, patch: int, stride: int) -> Tensor:
    """A map of stride `patch` at a greater `stride`, bilinearly: pixels stay where they were.

    The map may reach beyond the image by less than a patch; the result does not.
    """
    return F.interpolate(feature, scale_factor=patch / stride, mode="bilinear")
