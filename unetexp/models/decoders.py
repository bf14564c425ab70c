"""The decoder's parts: convolution blocks, the four ways to upsample, and the up block.

Letters: N batch, C channels, H W height and width of the block's input.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unetexp.component import Component

DecoderKind = Literal["classic", "slim"]
Upsampling = Literal["conv_transpose", "bilinear", "nearest", "pixel_shuffle"]

_SLIM_WIDTHS = (256, 128, 64, 32, 16)


class Decoder(Component):
    """How features become a mask: the widths of the up blocks and the way they upsample."""

    kind: DecoderKind = Field("slim", description="classic: wide, with a bridge; slim: narrow")
    upsampling: Upsampling = Field("conv_transpose", description="how an up block doubles H and W")

    def widths(self, deepest: int) -> tuple[int, ...]:
        """Output channels of the five up blocks on an encoder that ends in `deepest` channels.

        classic halves from block to block: 1024, 512, 256, 128, 64 over a ResNet-50.
        """
        if self.kind == "slim":
            return _SLIM_WIDTHS
        return tuple(deepest // 2**step for step in range(1, 6))


class ConvBlock(nn.Sequential):
    """3x3 convolution, batch norm, ReLU; H and W stay. No bias: batch norm would remove it."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)


class UpBlock(nn.Module):
    """Upsample, concatenate the encoder's feature of that size, convolve twice."""

    def __init__(
        self, in_channels: int, skip_channels: int, out_channels: int, upsampling: Upsampling
    ) -> None:
        super().__init__()
        self.upsample = make_upsampling(upsampling, in_channels, out_channels)
        self.conv_block_1 = ConvBlock(out_channels + skip_channels, out_channels)
        self.conv_block_2 = ConvBlock(out_channels, out_channels)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        """(N, C, H, W) and (N, skip_channels, 2H, 2W) -> (N, out_channels, 2H, 2W)."""
        joined = torch.cat([self.upsample(deep), skip], dim=1)
        result: Tensor = self.conv_block_2(self.conv_block_1(joined))
        return result


def make_upsampling(kind: Upsampling, in_channels: int, out_channels: int) -> nn.Module:
    """A module (N, in_channels, H, W) -> (N, out_channels, 2H, 2W).

    Interpolation comes after the 1x1 convolution: the two commute, and so it costs a quarter.
    pixel_shuffle (Shi et al. 2016, arXiv:1609.05158) convolves 1x1 where the paper uses 3x3, which
    with our widths would be larger than the encoder; it can express what conv_transpose can and
    differs in its initialisation.
    """
    if kind == "conv_transpose":
        return nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
    if kind == "pixel_shuffle":
        convolution = nn.Conv2d(in_channels, 4 * out_channels, kernel_size=1)
        _icnr(convolution)
        return nn.Sequential(convolution, nn.PixelShuffle(2))
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size=1)
    return nn.Sequential(convolution, nn.Upsample(scale_factor=2, mode=kind))


def _icnr(convolution: nn.Conv2d) -> None:
    """Initialise sub-pixel convolution as nearest-neighbour upsampling, without checkerboards.

    Aitken et al. 2017 (arXiv:1707.02937): the four filters that make one output channel's 2x2
    pixels start equal.
    """
    assert convolution.bias is not None
    with torch.no_grad():
        convolution.weight.copy_(convolution.weight[::4].repeat_interleave(4, dim=0))
        convolution.bias.zero_()
