"""Random views of training images: one affine warp for image and mask, then colour.

The host only cuts a window of fixed size out of the memory-mapped image; rotation, zoom, flips,
colour and normalisation run batched on the device. Every random number of a sample comes from
(seed, epoch, index), so order, workers and restarts change nothing.

N batch, C channels, S window side, P crop side (both in pixels).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from unetexp.component import Component
from unetexp.compute.on_device import constant
from unetexp.data.labels import VOID
from unetexp.errors import ConfigError

_WIDEST_SPAN = 0.99  # of a colour's factor: by strength alone no image becomes black
_SCATTER = 0.25  # of the crop's side: how far from the point that it shows its centre is drawn
_FARTHEST = 0.32  # on both axes at once 0.45: inside the crop at every rotation
_DROPOUT_STREAM = 1  # not 0, which would not change the seed
_LUMA = (0.2989, 0.587, 0.114)  # as torchvision's rgb_to_grayscale


class Augment(Component):
    """Random changes of training images. Validation images are never changed."""

    crop_px: int = Field(256, ge=16, le=8192, description="side of the square training crop")
    zoom_min: float = Field(0.8, gt=0, le=10, description="smallest magnification of the crop")
    zoom_max: float = Field(1.25, gt=0, le=10, description="largest magnification of the crop")
    hflip: float = Field(0.5, ge=0, le=1, description="probability of a left-right flip")
    vflip: float = Field(0.0, ge=0, le=1, description="probability of an upside-down flip")
    rotation_deg: float = Field(10.0, ge=0, le=180, description="largest rotation, left or right")
    brightness: float = Field(0.2, ge=0, lt=1, description="factor drawn from 1 -+ this")
    contrast: float = Field(0.2, ge=0, lt=1, description="factor drawn from 1 -+ this")
    saturation: float = Field(0.0, ge=0, lt=1, description="factor drawn from 1 -+ this; RGB only")

    strength: float = Field(
        1.0,
        ge=0,
        le=4,
        description="factor on rotation, brightness, contrast and saturation, and exponent of the "
        "zooms; 0: crops and flips alone",
    )

    modality_dropout: float = Field(
        0.0,
        ge=0,
        le=1,
        description="probability that one input channel of a sample is set to its mean, in images "
        "of two or more channels",
    )

    rare_crop: float = Field(
        0.0,
        ge=0,
        le=1,
        description="probability that a crop is laid around a pixel of a rare class of its image: "
        "of any class but the training split's most frequent one, drawn in inverse frequency",
    )

    @model_validator(mode="after")
    def _zoom_is_a_range(self) -> Self:
        if self.zoom_min > self.zoom_max:
            raise ConfigError(
                f"zoom_min {self.zoom_min} is above zoom_max {self.zoom_max}: swap them."
            )
        return self

    @property
    def window_px(self) -> int:
        """S: the window that holds any crop, at every rotation and zoom."""
        angle = math.radians(min(self.strength * self.rotation_deg, 45.0))
        reach = math.cos(angle) + math.sin(angle)
        smallest = float(self.zoom_min**self.strength)
        return math.ceil(self.crop_px / smallest * reach) + 1  # its start may be a fraction

    def draw(
        self,
        seed: int,
        epoch: int,
        index: int,
        height: int,
        width: int,
        again: int = 0,
        around: tuple[float, float] | None = None,
    ) -> AugmentParams:
        """The view of sample `index` (an image of height x width) in `epoch`.

        `again` counts the times that it was drawn in this epoch before. The crop shows the point
        `around` (row, column), if one is given.
        """
        rng = np.random.default_rng((seed, epoch, index, again) if again else (seed, epoch, index))
        log_zoom = self.strength * rng.uniform(math.log(self.zoom_min), math.log(self.zoom_max))
        degrees = self.strength * rng.uniform(-self.rotation_deg, self.rotation_deg)
        angle = math.radians(degrees)
        side = self.crop_px / math.exp(log_zoom)
        (top, shift_y), (left, shift_x) = (
            self._window(rng, extent, side, point)
            for extent, point in zip((height, width), around or (None, None), strict=True)
        )
        flip_x, flip_y = (-1.0 if rng.random() < p else 1.0 for p in (self.hflip, self.vflip))
        scale, cos, sin = side / self.window_px, math.cos(angle), math.sin(angle)
        theta = (
            (scale * cos * flip_x, -scale * sin * flip_y, shift_x),
            (scale * sin * flip_x, scale * cos * flip_y, shift_y),
        )
        spans = (
            min(max(span, _WIDEST_SPAN), self.strength * span)
            for span in (self.brightness, self.contrast, self.saturation)
        )
        return AugmentParams(
            top, left, theta, tuple(float(rng.uniform(1 - s, 1 + s)) for s in spans)
        )

    def draw_dropped(
        self, seed: int, epoch: int, index: int, channels: int, again: int = 0
    ) -> int | None:
        """The channel, from 0, of sample `index` that is set to its mean in `epoch`, if any.

        From a generator of its own: with or without it, the sample's view is the same.
        """
        if not self.modality_dropout or channels < 2:
            return None
        rng = np.random.default_rng((seed, epoch, index, again, _DROPOUT_STREAM))
        drawn, channel = rng.random(), int(rng.integers(channels))
        return channel if drawn < self.modality_dropout else None

    def _window(
        self, rng: np.random.Generator, extent: int, side: float, point: float | None
    ) -> tuple[int, float]:
        """Where the window starts so that the crop stays inside the image, if possible.

        Also the crop's centre relative to the window's, in half windows. With a `point` the centre
        is near it: nearer than the crop's edge, however it is rotated.
        """
        slack, drawn = extent - side, rng.random()
        centre = side / 2 + drawn * slack if slack > 0 else extent / 2
        if point is not None:
            near = point + (2 * drawn - 1) * _SCATTER * side
            inside = min(max(near, side / 2), extent - side / 2) if slack > 0 else extent / 2
            centre = min(max(inside, point - _FARTHEST * side), point + _FARTHEST * side)
        start = math.floor(centre - self.window_px / 2)
        return start, 2 * (centre - start) / self.window_px - 1


@dataclass(frozen=True)
class AugmentParams:
    """One sample's random view: the window's corner, the warp inside it, colour factors."""

    top: int
    left: int
    theta: tuple[tuple[float, ...], ...]  # (2, 3), as for torch's affine_grid
    colour: tuple[float, ...]  # brightness, contrast, saturation


def warp(images: Tensor, masks: Tensor, theta: Tensor, crop_px: int) -> tuple[Tensor, Tensor]:
    """Cut the crops out of their windows.

    images (N, C, S, S) float, masks (N, S, S) uint8, theta (N, 2, 3). Returns images
    (N, C, P, P) interpolated bilinearly and masks (N, P, P) int64 by nearest neighbour; what
    lies outside the window is 0 in the image and void in the mask.
    """
    shape = [len(images), 1, crop_px, crop_px]
    grid = F.affine_grid(theta, shape, align_corners=False)
    crops = F.grid_sample(images, grid, mode="bilinear", align_corners=False)
    shifted = masks.unsqueeze(1).float() - VOID  # so that the padding's 0 means void
    labels = F.grid_sample(shifted, grid, mode="nearest", align_corners=False) + VOID
    return crops, labels.squeeze(1).round().long()


def jitter_colour(images: Tensor, colour: Tensor) -> Tensor:
    """Change brightness, contrast and saturation by factors per sample, as torchvision's adjust_*.

    images (N, C, P, P) in 0..1; colour (N, 3). Saturation is changed only if C is 3.
    """
    brightness, contrast, saturation = colour.view(-1, 3, 1, 1, 1).unbind(1)
    images = (images * brightness).clamp(0, 1)
    mean = _grey(images).mean(dim=(1, 2, 3), keepdim=True)
    images = (mean + (images - mean) * contrast).clamp(0, 1)
    if images.shape[1] == 3:
        grey = _grey(images)
        images = (grey + (images - grey) * saturation).clamp(0, 1)
    return images


def drop_channels(inputs: Tensor, dropped: Tensor) -> Tensor:
    """Model input (N, C, P, P) in which channel `dropped` (N, 1) is its mean, 0; -1: none is.

    With `dropped` (N, 0) all stay as they are.
    """
    if not dropped.shape[1]:
        return inputs
    missing = dropped == torch.arange(inputs.shape[1], device=inputs.device)
    return inputs.masked_fill(missing.view(*missing.shape, 1, 1), 0)


def _grey(images: Tensor) -> Tensor:
    if images.shape[1] != 3:
        return images
    return (images * constant(_LUMA, images).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
