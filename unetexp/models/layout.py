"""How an image lies in memory while the model computes: number type, layout, padding.

And the convolutions that make use of it. Letters: N batch, C channels, H W height and width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TENSOR_CORE_CHANNELS = 8  # of 16-bit numbers; TF32 takes multiples of 4


class AlignedConv2d(nn.Conv2d):
    """A convolution that also takes as many channels as tensor cores like, zeros behind its own.

    Its weight is padded with zeros at each use, so parameters and result stay the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels or the next multiple of 8, H, W) -> as nn.Conv2d."""
        extra = -self.in_channels % _TENSOR_CORE_CHANNELS
        if not extra or input.shape[1] != self.in_channels + extra:
            return super().forward(input)
        weight = F.pad(self.weight, (0, 0, 0, 0, 0, extra))
        result: Tensor = self._conv_forward(input, weight, self.bias)
        return result


class SameConv2d(AlignedConv2d):
    """A convolution with TensorFlow's "same" padding, for sides that are multiples of its stride.

    An odd number of rows and columns of zeros has the greater half below and on the right.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out_channels, H / stride, W / stride)."""
        (top, below), (left, right) = self.margins
        return super().forward(F.pad(input, (left, right, top, below)))

    @property
    def margins(self) -> list[tuple[int, int]]:
        """Zeros before and behind each column, and each row."""
        margins = []
        for kernel, stride, step in zip(self.kernel_size, self.stride, self.dilation, strict=True):
            total = max(step * (kernel - 1) + 1 - stride, 0)
            margins.append((total // 2, total - total // 2))
        return margins


class AlignedDepthwise(nn.Conv2d):
    """A 3x3 convolution of each channel by itself; takes zeros behind them as AlignedConv2d."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, kernel_size=3, padding=1, groups=channels, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C or the next multiple of 8, H, W) -> the same shape; zeros stay zeros."""
        extra = input.shape[1] - self.in_channels
        if not extra:
            return super().forward(input)
        weight = F.pad(self.weight, (0, 0, 0, 0, 0, 0, 0, extra))
        return F.conv2d(input, weight, padding=self.padding, groups=input.shape[1])


class PointwiseConv2d(AlignedConv2d):
    """A 1x1 convolution, with any stride; on a CPU the matrix product that it is.

    torch multiplies image by image or reorders the weight at each step: at 96 px the ones of a
    ResNet-50 take 0.28 s of CPU time forward and backward, and as products 0.20 s.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> as nn.Conv2d."""
        if not (is_channels_last(input) and is_multiplied(input)):
            return super().forward(input)
        rows, columns = self.stride
        pixels = input.permute(0, 2, 3, 1)[:, ::rows, ::columns]
        return F.linear(pixels, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def is_multiplied(image: Tensor) -> bool:
    """Whether a convolution that is a matrix product is computed as one.

    It is on a CPU, where it was measured: not in 16 bits, compiled or exported.
    """
    if torch.compiler.is_compiling() or is_exported() or image.device.type != "cpu":
        return False
    return computed_dtype(image) in (torch.float32, torch.float64)


def is_channels_last(image: Tensor) -> bool:
    """Whether a pixel's channels lie together, by the strides that torch goes by.

    One channel is contiguous in every layout, and torch takes it for channels_last only if its
    stride is 1.
    """
    return image.stride(1) == 1 and image.is_contiguous(memory_format=torch.channels_last)


def is_exported() -> bool:
    """Whether a graph for any size is being made: nothing may then depend on the image's size."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return tracing or torch.compiler.is_exporting()


def channel_multiple(device: torch.device) -> int:
    """What the channels of a convolution should be a multiple of on this device.

    Measured on CPUs, padding costs more than it gains there.
    """
    return _TENSOR_CORE_CHANNELS if device.type == "cuda" else 1


def align_channels(image: Tensor, multiple: int) -> Tensor:
    """Channels of zeros added until C is a multiple."""
    extra = -image.shape[1] % multiple
    return F.pad(image, (0, 0, 0, 0, 0, extra)) if extra else image


def join(feature: Tensor, skip: Tensor, channels: int) -> Tensor:
    """A feature and the first `channels` of a skip behind it, with zeros up to the multiple.

    The skip may have zeros behind them already.
    """
    if not channels:
        return feature
    own = feature.shape[1] + channels
    wanted = own + -own % channel_multiple(feature.device)
    extra = wanted - feature.shape[1] - skip.shape[1]  # negative padding crops
    if extra:
        skip = F.pad(skip, (0, 0, 0, 0, 0, extra))
    return torch.cat([feature, skip], dim=1)


def computed_dtype(tensor: Tensor) -> torch.dtype:
    """The type that a convolution of this tensor computes in: autocast's where it is on."""
    device = tensor.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return tensor.dtype
    return tensor.dtype if tensor.dtype is torch.float64 else torch.get_autocast_dtype(device)


def lay_out(image: Tensor, weight: Tensor) -> Tensor:
    """The image in the layout of a convolution's weight with C > 1 that is no 1x1."""
    if not weight.is_contiguous(memory_format=torch.channels_last):
        return image.contiguous()
    return image if is_channels_last(image) else image.clone(memory_format=torch.channels_last)


def repeat_border(image: Tensor, right: int, below: int) -> Tensor:
    """(N, C, H, W) -> (N, C, H + below, W + right), in the same layout.

    On CUDA torch pads images into contiguous ones. What is channels_last is therefore padded as
    the contiguous volume (N, 1, H, W, C) that it is in memory.
    """
    if not is_channels_last(image):
        return F.pad(image, (0, right, 0, below), mode="replicate")
    volume = image.permute(0, 2, 3, 1)[:, None]
    padded = F.pad(volume, (0, 0, 0, right, 0, below), mode="replicate")
    return padded[:, 0].permute(0, 3, 1, 2)
