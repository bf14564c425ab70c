"""Samples and their augmented views as pictures for a page, with masks as layers of their own.

N batch, C channels, H W image size, P crop side.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unetexp.data import Dataset
from unetexp.data.labels import VOID
from unetexp.data.painting import displayable
from unetexp.models.weights.resolution import Normalization
from unetexp.training.batches.order import SampleKey
from unetexp.training.batches.train_batches import Windows, augmented
from unetexp.training.config import TrainConfig
from unetexp.training.pictures import class_colours

_LONGEST_PX = 320
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Picture:
    """An image and its mask, as addresses that hold the files themselves."""

    image: str  # data:image/jpeg
    mask: str  # data:image/png with transparency: class 0 is not painted
    width: int
    height: int


@dataclass(frozen=True)
class ShownSample:
    """One sample: as it is stored, and some of its views in training."""

    name: str
    size: str
    original: Picture
    views: Sequence[Picture]


def shown_sample(
    data: Dataset, config: TrainConfig, split: str, index: int, views: int
) -> ShownSample:
    """The sample with its views in the first epochs of a training with this configuration.

    A view is drawn and computed as in training; only the normalisation is left out.
    """
    sample = data[split][index]
    image, mask = sample.image, sample.mask
    windows = Windows(data[split], config.augment, config.seed, pin=False)
    keys = [SampleKey(epoch, index, 0) for epoch in range(1, views + 1)]
    as_it_is = Normalization((0.0,) * data.channels, (1.0,) * data.channels)
    crops, labels = augmented(windows.batch(keys), data, config.augment.crop_px, as_it_is, _CPU)
    height, width = mask.shape
    return ShownSample(
        name=sample.name,
        size=f"{width} x {height}",
        original=_picture(image, mask, data.image_max, data.class_names),
        views=[
            _picture(crop * 255, label, 255, data.class_names)
            for crop, label in zip(crops, labels, strict=True)
        ],
    )


def _picture(image: Tensor, mask: Tensor, image_max: int, names: Sequence[str]) -> Picture:
    """image (C, H, W) with values up to `image_max`, mask (H, W)."""
    pixels = Image.fromarray(displayable(image.numpy(), image_max))
    layer = Image.fromarray(_layer(mask, names), "RGBA")
    scale = min(1.0, _LONGEST_PX / max(pixels.size))
    size = (max(1, round(pixels.width * scale)), max(1, round(pixels.height * scale)))
    return Picture(
        image=_address(pixels.resize(size, Image.Resampling.BILINEAR), "JPEG"),
        mask=_address(layer.resize(size, Image.Resampling.NEAREST), "PNG"),
        width=size[0],
        height=size[1],
    )


def _layer(mask: Tensor, names: Sequence[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(H, W, 4): each label's colour, class 0 transparent."""
    table = np.zeros((VOID + 1, 4), np.uint8)
    colours = dict(class_colours(names))
    painted = {label: colours[name] for label, name in enumerate(names) if label}
    for label, colour in {**painted, VOID: colours["void"]}.items():
        table[label] = (*bytes.fromhex(colour[1:]), 255)
    return np.asarray(table[mask.numpy().astype(np.int64)])


def _address(picture: Image.Image, form: str) -> str:
    file = io.BytesIO()
    picture.save(file, form, quality=90)
    kind = form.lower()
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
