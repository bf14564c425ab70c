"""The four ways to double a feature's height and width.

Letters: N batch, C channels, H W height and width of the input.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unetexp.models.layout import is_channels_last, is_multiplied

Upsampling = Literal["conv_transpose", "bilinear", "nearest", "pixel_shuffle"]

_FEW_PIXELS = 64  # an image's; measured on one thread


class UpConvolution(nn.ConvTranspose2d):
    """Transposed 2x2 convolution with stride 2; on a CPU the matrix product that it is.

    The product is up to four times faster where torch would reorder a large weight for a small
    feature, and slower on large contiguous features.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=2, stride=2)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, 2H, 2W)."""
        if not is_multiplied(input):
            return super().forward(input, output_size)
        if is_channels_last(input):
            return self._of_channels_last(input)
        if input.shape[-2] * input.shape[-1] <= _FEW_PIXELS:
            return self._of_contiguous(input)
        return super().forward(input, output_size)

    def _of_channels_last(self, feature: Tensor) -> Tensor:
        batch, _, height, width = feature.shape
        weight = self.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (2 x 2 x out_channels, C)
        assert self.bias is not None
        pixels = F.linear(feature.permute(0, 2, 3, 1), weight, self.bias.repeat(4))
        grid = pixels.view(batch, height, width, 2, 2, self.out_channels).transpose(2, 3)
        image = grid.reshape(batch, 2 * height, 2 * width, self.out_channels)
        return image.permute(0, 3, 1, 2)

    def _of_contiguous(self, feature: Tensor) -> Tensor:
        batch, _, height, width = feature.shape
        weight = self.weight.flatten(1).t()  # (out_channels x 2 x 2, C)
        assert self.bias is not None
        pixels = F.linear(feature.permute(0, 2, 3, 1), weight, self.bias.repeat_interleave(4))
        grid = pixels.view(batch, height, width, self.out_channels, 2, 2)
        image = grid.permute(0, 3, 1, 4, 2, 5)
        return image.reshape(batch, self.out_channels, 2 * height, 2 * width)


def make_upsampling(kind: Upsampling, in_channels: int, out_channels: int) -> nn.Module:
    """A module (N, in_channels, H, W) -> (N, out_channels, 2H, 2W).

    Interpolation comes after the 1x1 convolution: the two commute, and so it costs a quarter.
    pixel_shuffle (Shi et al. 2016, arXiv:1609.05158) convolves 1x1 where the paper uses 3x3, which
    with our widths would be larger than the encoder; it can express what conv_transpose can and
    differs in its initialisation.
    """
    if kind == "conv_transpose":
        return UpConvolution(in_channels, out_channels)
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
