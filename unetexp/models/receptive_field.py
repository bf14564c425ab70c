"""The receptive field of a model: the pixels of the image that a logit depends on."""

from __future__ import annotations

from torch import nn

from unetexp.models.unet import UNet


def receptive_radius_px(model: UNet) -> int:
    """The greatest distance, in rows or columns, at which a pixel changes a logit.

    The receptive field is a square of twice this plus one pixels per side around the logit's pixel.
    It is that of the longest path, through the deepest stage; every skip has a smaller one.
    """
    layers = list(reversed(_longest_path(model)))
    radius = 0
    for pixel in range(model.encoder.strides[-1]):  # its position in the deepest stage's grid
        first = last = pixel
        for layer in layers:
            first, last = _seen(layer, first, last)
        radius = max(radius, pixel - first, last - pixel)
    return radius


def _longest_path(model: UNet) -> list[nn.Module]:
    encoder = [layer for name, layer in model.encoder.named_modules() if "downsample" not in name]
    return [*encoder, *model.bridge.modules(), *model.up_blocks.modules()]


def _seen(layer: nn.Module, first: int, last: int) -> tuple[int, int]:
    """The range of the input that a range of the output depends on, along one axis."""
    if isinstance(layer, nn.Upsample) and layer.mode == "bilinear":
        return (first - 1) // 2, (last + 1) // 2
    if isinstance(layer, nn.Upsample | nn.PixelShuffle | nn.ConvTranspose2d):
        return first // 2, last // 2
    if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
        kernel, stride, padding = map(_side, (layer.kernel_size, layer.stride, layer.padding))
        return first * stride - padding, last * stride - padding + kernel - 1
    return first, last


def _side(size: object) -> int:
    side = size[0] if isinstance(size, tuple) else size
    assert isinstance(side, int)
    return side
