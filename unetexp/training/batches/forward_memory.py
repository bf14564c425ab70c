"""The memory that a forward pass without gradients takes, from the widths of the model.

Letters: C channels, K classes; a "pixel" is one of the image.
"""

from __future__ import annotations

import math

from unetexp.models.unet import UNet

_NUMBER_BYTES = 4  # fp32; bf16 takes less, and its matrix libraries more beside it
_WORKSPACE = 1.25  # of the libraries: weights and features in the order that suits them


def forward_bytes_per_pixel(model: UNet) -> int:
    """Bytes per pixel at the fullest moment of a forward pass, at most.

    Every feature that a later block needs is held; a block holds its input, the joined features,
    and what a convolution and its batch norm read and write.
    """
    channels, strides = model.encoder.channels, model.encoder.strides
    skips = list(zip(channels, strides, strict=True))
    held = sum(_numbers(*skip) for skip in skips)
    moments = [
        sum(_numbers(*earlier) for earlier in skips[:at]) + 4 * _numbers(*skips[at])
        for at in range(1, len(skips))
    ]
    below = channels[-1]
    outputs = model.decoder.widths_over(below)
    for (skip, stride), out in zip(reversed(skips[:-1]), outputs, strict=True):
        joined, made = _numbers(skip + out, stride), 3 * _numbers(out, stride)
        moments.append(held + _numbers(below, 2 * stride) + joined + made)
        below = out
    moments.append(held + below + 2 * model.head.out_channels)
    return math.ceil(_NUMBER_BYTES * _WORKSPACE * max(moments))


def _numbers(channels: int, stride: int) -> float:
    """How many numbers per pixel a feature of `channels` at `stride` has."""
    return channels / stride**2
