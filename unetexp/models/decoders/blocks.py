"""The up blocks of the decoders' kinds and the convolutions in them.

Letters: N batch, C channels, H W height and width of the block's input.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from unetexp.models.decoders.attention import Attention, make_attention
from unetexp.models.decoders.upsampling import Upsampling, make_upsampling
from unetexp.models.layout import AlignedConv2d, AlignedDepthwise, PointwiseConv2d, join


class ConvBlock(nn.Sequential):
    """3x3 convolution, batch norm, ReLU; H and W stay. No bias: batch norm would remove it."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = AlignedConv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)


class SeparableBlock(nn.Sequential):
    """3x3 convolution of each channel, 1x1 of all, batch norm, ReLU; H and W stay.

    As in MobileNet (Howard et al. 2017, arXiv:1704.04861), without the norm in the middle.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.depthwise = AlignedDepthwise(in_channels)
        self.pointwise = PointwiseConv2d(in_channels, out_channels, kernel_size=1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)


class UpBlock(nn.Module):
    """Upsample, concatenate the encoder's feature of that size, convolve twice."""

    block: ClassVar[type[ConvBlock | SeparableBlock]] = ConvBlock

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,
        out_channels: int,
        upsampling: Upsampling,
        attention: Attention = "none",
    ) -> None:
        super().__init__()
        self.skip_channels = skip_channels
        self.upsample = make_upsampling(upsampling, in_channels, out_channels)
        self.conv_block_1 = self.block(out_channels + skip_channels, out_channels)
        self.conv_block_2 = self.block(out_channels, out_channels)
        self.attention = make_attention(attention, out_channels)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        """(N, C, H, W) and (N, skip_channels, 2H, 2W) -> (N, out_channels, 2H, 2W).

        The skip may have channels of zeros behind its own, or none at all.
        """
        feature = join(self.upsample(deep), skip, self.skip_channels)
        result: Tensor = self.attention(self.conv_block_2(self.conv_block_1(feature)))
        return result


class LiteUpBlock(UpBlock):
    """The same with depthwise separable convolutions."""

    block = SeparableBlock


class LiteLastBlock(nn.Module):
    """The last block of a light decoder: convolutions at half the resolution, then upsampling.

    The image comes as the four pixels of each 2x2 square, in four times its channels, so that
    nothing of it is lost; at full resolution this takes a fifth of the time.
    """

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,
        out_channels: int,
        upsampling: Upsampling,
        attention: Attention = "none",
    ) -> None:
        super().__init__()
        self.skip_channels = skip_channels
        self.conv_block_1 = SeparableBlock(in_channels + 4 * skip_channels, in_channels)
        self.conv_block_2 = SeparableBlock(in_channels, in_channels)
        self.attention = make_attention(attention, in_channels)
        self.upsample = make_upsampling(upsampling, in_channels, out_channels)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        """(N, C, H, W) and (N, skip_channels, 2H, 2W) -> (N, out_channels, 2H, 2W).

        The skip may have channels of zeros behind its own.
        """
        squares = F.pixel_unshuffle(skip[:, : self.skip_channels], 2)
        feature = join(deep, squares, 4 * self.skip_channels)
        feature = self.attention(self.conv_block_2(self.conv_block_1(feature)))
        result: Tensor = self.upsample(feature)
        return result
