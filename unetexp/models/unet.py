"""The U-Net: bridge, up blocks and head on any encoder, for images of any size.

Letters: N batch, C channels, K classes, H W height and width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from unetexp.errors import ConfigError, UserError
from unetexp.models.decoders import ConvBlock, Decoder, up_blocks
from unetexp.models.encoders import Encoder, FeatureEncoder
from unetexp.models.layout import (
    align_channels,
    channel_multiple,
    computed_dtype,
    is_exported,
    lay_out,
    repeat_border,
)


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015, arXiv:1505.04597) with a classifier's encoder.

    Every up block takes the encoder's feature of its stride, the last one the image itself; where
    an encoder has no feature of a stride, the block has none to take. Unlike in the
    paper, where unpadded convolutions shrink the image, sizes stay: the image is padded on the
    right and at the bottom by repeating its border, and the logits are cropped.
    """

    def __init__(self, encoder: FeatureEncoder, decoder: Decoder, num_classes: int) -> None:
        super().__init__()
        *skips, deepest = encoder.channels
        self.decoder = decoder
        self.encoder = encoder
        self.bridge = nn.Sequential()
        if decoder.kind == "classic":
            self.bridge.extend([ConvBlock(deepest, deepest), ConvBlock(deepest, deepest)])
        self.up_blocks = nn.ModuleList(up_blocks(decoder, tuple(skips), deepest))
        self.head = nn.Conv2d(decoder.widths_over(deepest)[-1], num_classes, kernel_size=1)
        self._shown_layout = _weight_that_shows_layout(self)

    def forward(self, image: Tensor) -> Tensor:
        """Float images (N, C, H, W), any H and W from 1 up -> logits (N, K, H, W).

        Raises UserError for another shape or type, and in train mode for a batch that shrinks to
        one pixel where batch norm would have to normalise it.
        """
        self._check(image)
        below, right = self._missing(image)
        if is_exported():
            padded = F.pad(image, (0, right, 0, below), mode="replicate")
            # negative padding crops; a slice here would fix torch.export to one size
            return F.pad(self._logits(padded), (0, -right, 0, -below))
        image = self._laid_out(image)
        if not below and not right:
            return self._logits(image)
        logits = self._logits(repeat_border(image, right, below))
        return F.pad(logits, (0, -right, 0, -below))

    def _logits(self, image: Tensor) -> Tensor:
        *skips, deepest = self.encoder(image)
        feature = self.bridge(deepest)
        for up_block, skip in zip(self.up_blocks, reversed(skips), strict=True):
            feature = up_block(feature, skip)
        logits: Tensor = self.head(feature)
        return logits

    def with_auxiliary(self, image: Tensor, heads: nn.ModuleList) -> tuple[Tensor, ...]:
        """The logits, and those that `heads` make of the other up blocks' features.

        There is a head for each block but the last; its logits are (N, K, H / s, W / s) of the
        padded image with s = 16, 8, 4, 2. Raises as `forward` does.
        """
        self._check(image)
        below, right = self._missing(image)
        *skips, deepest = self.encoder(repeat_border(self._laid_out(image), right, below))
        feature, auxiliary = self.bridge(deepest), []
        for number, (up_block, skip) in enumerate(
            zip(self.up_blocks, reversed(skips), strict=True)
        ):
            feature = up_block(feature, skip)
            if number < len(heads):
                auxiliary.append(heads[number](feature))
        return F.pad(self.head(feature), (0, -right, 0, -below)), *auxiliary

    def _missing(self, image: Tensor) -> tuple[int, int]:
        """Rows and columns up to the sizes that the encoder takes."""
        multiple = self.encoder.size_multiple
        return -image.shape[-2] % multiple, -image.shape[-1] % multiple

    def _laid_out(self, image: Tensor) -> Tensor:
        """The image as the convolutions compute with it: number type, channels, memory layout."""
        image = image.to(computed_dtype(image))
        image = align_channels(image, channel_multiple(image.device))
        if self._shown_layout is None:
            return image
        return lay_out(image, self.get_parameter(self._shown_layout))

    def _check(self, image: Tensor) -> None:
        channels = self.encoder.channels[0]
        if image.ndim != 4 or image.shape[1] != channels or min(image.shape[-2:]) < 1:
            raise UserError(
                f"The model takes images of shape (N, {channels}, H, W) with H and W from 1 up and "
                f"was given {tuple(image.shape)}. A single image needs a batch dimension "
                "(image[None]); other channels need in_channels when the model is created."
            )
        if not image.is_floating_point():
            raise UserError(
                f"The model takes float images and was given {image.dtype}. Scale them to 0..1 and "
                "normalise them as the encoder's weights expect (unetexp.input_normalization)."
            )
        if self.training:
            self._check_batch_norm(image)

    def _check_batch_norm(self, image: Tensor) -> None:
        batch, _, height, width = image.shape
        side = max(height, width, self.encoder.size_multiple)  # of the padded image
        if batch != 1 or side > self.encoder.strides[-1]:
            return
        at_one_pixel = nn.ModuleList([*self.encoder.deepest, self.bridge])
        if any(isinstance(m, nn.BatchNorm2d) and m.training for m in at_one_pixel.modules()):
            raise UserError(
                f"One image of {height}x{width} pixels shrinks to a single pixel in the encoder, "
                "and batch norm in train mode is not defined on one value per channel. Use two or "
                f"more images per batch, a side above {self.encoder.strides[-1]} pixels, "
                "or model.eval()."
            )


def _weight_that_shows_layout(model: UNet) -> str | None:
    """The name of a weight whose memory layout is not ambiguous: a decoder's, if it has one."""
    candidates = [*model.up_blocks.named_parameters("up_blocks"), *model.named_parameters()]
    for name, weight in candidates:
        if weight.ndim == 4 and weight.shape[1] > 1 and weight.shape[-1] > 1:
            return name
    return None


def build_unet(encoder: Encoder, decoder: Decoder, num_classes: int, in_channels: int) -> UNet:
    """A U-Net with random weights, frozen as `encoder.freeze` says, in train mode."""
    model = UNet(encoder.build(in_channels), decoder, num_classes)
    model.encoder.freeze(encoder.freeze)
    return model


def freeze_encoder(model: nn.Module, level: str) -> None:
    """Freeze a model's encoder up to and including `level`; the rest is thawed.

    Levels: none, stem, stage1, stage2, stage3, all, and of a Vision Transformer also block1 and so
    on: the stem and so many blocks. A frozen part gets no gradients and keeps its
    batch norm and dropout in eval mode, also after `model.train()`. Raises ConfigError for an
    unknown level and for a model that is not from this package.
    """
    encoder = getattr(model, "encoder", None)
    if not isinstance(encoder, FeatureEncoder):
        raise ConfigError(
            f"A {type(model).__name__} has no encoder to freeze. Give freeze_encoder a model from "
            "create_segmentation_model, without a wrapper around it."
        )
    encoder.freeze(level)
