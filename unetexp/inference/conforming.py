"""An image in the form that a model takes: its channels and its depth.

Without torch, as an exported model runs without it. C channels, H W image size.
"""

from __future__ import annotations

import numpy as np

from unetexp.data.collection import RawImage
from unetexp.errors import UserError
from unetexp.models.image_spec import ImageSpec

_FULL_8, _FULL_16 = 2**8 - 1, 2**16 - 1
_LUMA = (299, 587, 114)  # thousandths, ITU-R BT.601


def full_scale(item_bytes: int, spec: ImageSpec) -> int:
    """The pixel value that is 1.0 to the model, of images with so many bytes per value."""
    if item_bytes == 1:
        return _FULL_8
    return _FULL_16 if spec.image_max == _FULL_8 else spec.image_max


def conform(image: RawImage, spec: ImageSpec) -> tuple[RawImage, tuple[str, ...]]:
    """The image (C, H, W) with the model's channels, and warnings about that.

    Grey becomes RGB by repetition, RGB grey by its luma. Values that were clipped in training are
    clipped. Raises UserError for other channels.
    """
    warnings = []
    channels = image.shape[0]
    if (channels, spec.in_channels) == (1, 3):
        image = np.repeat(image, 3, axis=0)
        warnings.append("is grey and the model takes RGB: the grey channel is repeated three times")
    elif (channels, spec.in_channels) == (3, 1):
        luma = sum(
            weight * band.astype(np.int32) for weight, band in zip(_LUMA, image, strict=True)
        )
        image = ((luma + 500) // 1000).astype(image.dtype)[np.newaxis]
        warnings.append("is RGB and the model takes grey: its luma is used")
    elif channels != spec.in_channels:
        raise UserError(
            f"the image has {channels} channels and the model takes {spec.in_channels}. Only grey "
            "(1) and RGB (3) are converted into each other."
        )
    if spec.input is not None and spec.input.ceiling and image.dtype == np.uint16:
        image = np.minimum(image, np.uint16(spec.input.ceiling))
    if (image.dtype == np.uint8) != (spec.image_max == _FULL_8):
        stored, trained = (8, 16) if image.dtype == np.uint8 else (16, 8)
        warnings.append(
            f"has {stored} bits and the model was trained on {trained}: its full range is mapped "
            "to that of the other"
        )
    return image, tuple(warnings)
