"""A model with its weights, created from names in one call."""

from __future__ import annotations

from numbers import Integral

from unetexp.component import decode
from unetexp.errors import ConfigError
from unetexp.models.decoders import Decoder
from unetexp.models.encoders import Encoder, family_of
from unetexp.models.unet import UNet, build_unet
from unetexp.models.weights.resolution import load_encoder_weights, resolve_weights


def create_segmentation_model(
    num_classes: int = 2,
    pretrained: bool = True,
    *,
    encoder: str = "resnet50",
    decoder: str = "classic",
    upsampling: str = "conv_transpose",
    in_channels: int = 3,
) -> UNet:
    """A U-Net: float (N, in_channels, H, W) with any H and W from 1 up -> logits of that size.

    `pretrained` starts the encoder from torchvision's or timm's weights (downloaded on first use);
    the decoder starts from random ones. The logits are (N, num_classes, H, W). The model is in
    train mode.

    Encoders: resnet18, resnet34, resnet50, resnet101, resnet152, resnext50_32x4d, wide_resnet50_2
    of torchvision, and every model of timm that a family of encoders takes. Decoders: classic,
    slim, lite. Upsampling: conv_transpose, bilinear, nearest, pixel_shuffle. Raises ConfigError
    for an unknown name or a number below 1, and WeightsUnavailableError, within about ten seconds,
    if the weights are not available.
    """
    if not isinstance(pretrained, bool):
        raise ConfigError(f"pretrained: {pretrained!r} is given, and True or False is needed.")
    for name, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{name}: {value!r} is given; a whole number from 1 up is needed.")
    start: Encoder = decode(
        Encoder,
        {
            "kind": family_of(encoder),
            "name": encoder,
            "weights": "imagenet" if pretrained else "none",
        },
        "encoder",
    )
    shape: Decoder = decode(Decoder, {"kind": decoder, "upsampling": upsampling}, "decoder")
    resolve_weights(start, in_channels=in_channels)
    model = build_unet(start, shape, num_classes, in_channels)
    load_encoder_weights(model, start)
    return model
