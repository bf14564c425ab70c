"""Random views of training images: one affine warp for image and mask, then colour.

The host only cuts a window of fixed size out of the memory-mapped image; rotation, zoom, flips,
colour and normalisation run batched on the device. Every random number of a sample comes from
(seed, epoch, index), so order, workers and restarts change nothing.

N batch, C channels, S window side, P crop side (both in pixels).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from unetexp.component import Component, Tree
from unetexp.compute.on_device import constant
from unetexp.data.labels import VOID
from unetexp.errors import ConfigError
from unetexp.training.augmenting.effects import (
    MOST_BLUR_PX,
    MOST_COARSE,
    MOST_ELASTIC,
    UNCHANGED,
    Effects,
)
from unetexp.training.augmenting.presets import Preset, filled, forget_preset

_WIDEST_SPAN = 0.99  # of a colour's factor: by strength alone no image becomes black
_SCATTER = 0.25  # of the crop's side: how far from the point that it shows its centre is drawn
_FARTHEST = 0.32  # on both axes at once 0.45: inside the crop at every rotation
_EFFECTS_STREAM = 2
_DROPOUT_STREAM = 1  # not 0, which would not change the seed
_LUMA = (0.2989, 0.587, 0.114)  # as torchvision's rgb_to_grayscale


class Augment(Component):
    """Random changes of training images. Validation images are never changed."""

    preset: Preset = Field(
        "light",
        description="gives the values of the fields from zoom to noise that are not set "
        "themselves; `light` is their defaults, `medical` nnU-Net's kind of changes",
    )
    crop_px: int = Field(256, ge=16, le=8192, description="side of the square training crop")
    zoom_min: float = Field(0.8, gt=0, le=10, description="smallest magnification of the crop")
    zoom_max: float = Field(1.25, gt=0, le=10, description="largest magnification of the crop")
    hflip: float = Field(0.5, ge=0, le=1, description="probability of a left-right flip")
    vflip: float = Field(0.0, ge=0, le=1, description="probability of an upside-down flip")
    rotation_deg: float = Field(10.0, ge=0, le=180, description="largest rotation, left or right")
    brightness: float = Field(0.2, ge=0, lt=1, description="factor drawn from 1 -+ this")
    contrast: float = Field(0.2, ge=0, lt=1, description="factor drawn from 1 -+ this")
    saturation: float = Field(0.0, ge=0, lt=1, description="factor drawn from 1 -+ this; RGB only")

    effect_probability: float = Field(
        0.0,
        ge=0,
        le=1,
        description="probability with which each of elastic, gamma, blur_px, low_resolution and "
        "noise changes a sample",
    )
    elastic: float = Field(
        0.0, ge=0, le=0.1, description="largest shift of a smooth deformation, share of the crop"
    )
    gamma: float = Field(
        0.0, ge=0, le=3, description="exponent on the image's own range drawn up to 1 + this, or 1/"
    )
    blur_px: float = Field(0.0, ge=0, le=4, description="largest sigma of a Gaussian blur, pixels")
    low_resolution: float = Field(
        1.0,
        ge=1,
        le=4,
        description="largest factor by which an image is made coarser",
    )
    noise: float = Field(
        0.0, ge=0, le=1, description="largest sigma of Gaussian noise; 1: the range of an image"
    )

    strength: float = Field(
        1.0,
        ge=0,
        le=4,
        description="factor on rotation, brightness, contrast, saturation, elastic, blur and noise "
        "and exponent of zooms, gamma and low resolution; 0: crops and flips alone",
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

    @model_validator(mode="before")
    @classmethod
    def _preset_fills_the_rest(cls, given: Any) -> Any:
        return filled(given) if isinstance(given, dict) else given

    @classmethod
    def before_change(cls, tree: Tree, name: str) -> None:
        """A change of the preset forgets what the preset before has filled in."""
        if name == "preset":
            forget_preset(tree)

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
        reach *= 1 + 2 * self._scaled(self.elastic, MOST_ELASTIC)
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

    @property
    def has_effects(self) -> bool:
        """Whether any sample is changed by more than its view and colour."""
        some = (self.elastic, self.gamma, self.blur_px, self.low_resolution - 1, self.noise)
        return bool(self.strength and self.effect_probability and any(some))

    def draw_effects(self, seed: int, epoch: int, index: int, again: int = 0) -> Effects:
        """What else changes sample `index` in `epoch`, from a generator of its own."""
        rng = np.random.default_rng((seed, epoch, index, again, _EFFECTS_STREAM))
        chosen = rng.random(5) < self.effect_probability
        sizes, bend = rng.random(4), rng.uniform(-1, 1)
        coarse = round(self.low_resolution ** (self.strength * sizes[2]))
        drawn = Effects(
            elastic=sizes[0] * self._scaled(self.elastic, MOST_ELASTIC),
            gamma=math.exp(self.strength * bend * math.log1p(self.gamma)),
            blur_px=sizes[1] * self._scaled(self.blur_px, MOST_BLUR_PX),
            coarse=min(coarse, MOST_COARSE),
            noise=sizes[3] * self._scaled(self.noise, 1.0),
        )
        pairs = zip(chosen, drawn, UNCHANGED, strict=False)  # the seed is not among them
        kept = [float(new if use else old) for use, new, old in pairs]
        return Effects(*kept)._replace(seed=float(rng.integers(2**24)))

    def _scaled(self, value: float, most: float) -> float:
        return min(self.strength * value, most)

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


def warp(
    images: Tensor, masks: Tensor, theta: Tensor, crop_px: int, shifts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cut the crops out of their windows.

    images (N, C, S, S) float, masks (N, S, S) uint8, theta (N, 2, 3), shifts (N, P, P, 2): of the
    crop's points, x and y in half crops. Returns images (N, C, P, P) interpolated bilinearly and
    masks (N, P, P) int64 by nearest neighbour, both at the same points; what lies outside the
    window is 0 in the image and void in the mask.
    """
    shape = [len(images), 1, crop_px, crop_px]
    grid = F.affine_grid(theta, shape, align_corners=False)
    if shifts is not None:
        grid = grid + torch.einsum("nij,nhwj->nhwi", theta[:, :, :2], shifts)
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
