"""The receptive field of a model: the pixels of the image that a logit depends on."""

from __future__ import annotations

from torch import nn

from unetexp.models.decoders import ScSE
from unetexp.models.layout import SameConv2d
from unetexp.models.unet import UNet


def receptive_radius_px(model: UNet) -> int | None:
    """The greatest distance, in rows or columns, at which a pixel changes a logit.

    None if every logit depends on the whole image, as with attention or squeeze-and-excitation:
    the logits of a tile are then an approximation of the image's, whatever the overlap.
    The receptive field is a square of twice this plus one pixels per side around the logit's pixel.
    It is that of the longest path, through the deepest stage; every skip has a smaller one.
    """
    path = model.encoder.longest_path
    if path is None or any(isinstance(part, ScSE) for part in model.up_blocks.modules()):
        return None
    layers = [*model.up_blocks.modules()][::-1] + [*model.bridge.modules()][::-1] + path[::-1]
    radius = 0
    for pixel in range(model.encoder.strides[-1]):  # its position in the deepest stage's grid
        first = last = pixel
        for layer in layers:
            first, last = _seen(layer, first, last)
        radius = max(radius, pixel - first, last - pixel)
    return radius


def _seen(layer: nn.Module, first: int, last: int) -> tuple[int, int]:
    """The range of the input that a range of the output depends on, along one axis."""
    if isinstance(layer, nn.Upsample) and layer.mode == "bilinear":
        return (first - 1) // 2, (last + 1) // 2
    if isinstance(layer, nn.Upsample | nn.PixelShuffle | nn.ConvTranspose2d):
        return first // 2, last // 2
    if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
        sizes = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        kernel, stride, padding, step = map(_side, sizes)
        if isinstance(layer, SameConv2d):
            (padding, _), _ = layer.margins
        return first * stride - padding, last * stride - padding + step * (kernel - 1)
    return first, last


def _side(size: object) -> int:
    side = size[0] if isinstance(size, tuple) else size
    assert isinstance(side, int)
    return side
