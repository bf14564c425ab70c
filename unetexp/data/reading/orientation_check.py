"""Whether masks were drawn on the upright image or on the frame as stored.

Where an orientation tag turns an image without changing its size (180 degrees, mirrored, or a
square photograph), only the content tells: the edges of the mask lie on edges of the image.

C channels, H W image size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from unetexp.data.reading.orientation import upright

Verdict = Literal["as read", "stored", "cannot tell"]

_CLEAR = math.log(1.2)  # how much stronger edges must be in one reading
_VERY_CLEAR = math.log(1.5)  # in one image
_SIDE_PX = 512  # larger images are averaged down: masks are drawn to some pixels
_FLOOR = 1e-6


@dataclass(frozen=True)
class EdgeFit:
    """How strong the image is along the mask's edges, relative to elsewhere."""

    as_read: float  # image turned by its tag, mask as it is read
    stored: float  # image as stored

    @property
    def preference(self) -> float:
        """The logarithm of how much better the stored frame fits."""
        return math.log((self.stored + _FLOOR) / (self.as_read + _FLOOR))

    @property
    def is_as_stored(self) -> bool:
        """Whether this image alone says that its mask was drawn on it as stored."""
        return self.preference > _VERY_CLEAR


@dataclass(frozen=True)
class OrientationFit:
    """The verdict over the images of a set, with the mean figure of each reading."""

    verdict: Verdict
    as_read: float
    stored: float
    images: int


def edge_fit(image: npt.NDArray[Any], mask: npt.NDArray[Any], orientation: int) -> EdgeFit | None:
    """How well the mask (H, W) fits the image (C, H, W), turned by `orientation`, and unturned.

    None where the sizes differ in one of the readings or the mask has no edges.
    """
    stored = _turned_back(image.transpose(1, 2, 0), orientation).transpose(2, 0, 1)
    if not image.shape[1:] == stored.shape[1:] == mask.shape:
        return None
    step = math.ceil(max(mask.shape) / _SIDE_PX)
    edges = _edges(mask[step // 2 :: step, step // 2 :: step])
    if not edges.any() or edges.all():
        return None
    return EdgeFit(*(_strength(_averaged(each, step), edges) for each in (image, stored)))


def orientation_fit(fits: Sequence[EdgeFit]) -> OrientationFit:
    """The verdict over all images that tell: by the mean of their preferences."""
    if not fits:
        return OrientationFit("cannot tell", math.nan, math.nan, 0)
    preference = float(np.mean([fit.preference for fit in fits]))
    verdict: Verdict = "cannot tell"
    if abs(preference) > _CLEAR:
        verdict = "stored" if preference > 0 else "as read"
    as_read, stored = (
        float(np.mean([getattr(fit, name) for fit in fits])) for name in ("as_read", "stored")
    )
    return OrientationFit(verdict, as_read, stored, len(fits))


def _turned_back(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """The inverse of `upright`: only quarter turns are not their own."""
    return upright(pixels, {6: 8, 8: 6}.get(orientation, orientation))


def _edges(mask: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """The pixels on either side of every change of label."""
    edges = np.zeros(mask.shape, np.bool_)
    down, right = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    edges[1:] |= down
    edges[:-1] |= down
    edges[:, 1:] |= right
    edges[:, :-1] |= right
    return edges


def _averaged(image: npt.NDArray[Any], step: int) -> npt.NDArray[np.float32]:
    """The mean of blocks of step x step pixels (C, h, w); the rest is dropped."""
    channels, height, width = (image.shape[0], *(side // step for side in image.shape[1:]))
    inside = image[:, : height * step, : width * step]
    blocks = inside.reshape(channels, height, step, width, step)
    averaged: npt.NDArray[np.float32] = blocks.mean(axis=(2, 4), dtype=np.float32)
    return averaged


def _strength(image: npt.NDArray[np.float32], edges: npt.NDArray[np.bool_]) -> float:
    """Mean gradient of the image (C, h, w) on the edges, relative to the mean elsewhere."""
    gradient: npt.NDArray[np.float32] = np.zeros(image.shape[1:], np.float32)
    gradient[1:-1] += np.abs(image[:, 2:] - image[:, :-2]).sum(axis=0)
    gradient[:, 1:-1] += np.abs(image[:, :, 2:] - image[:, :, :-2]).sum(axis=0)
    height, width = gradient.shape
    here = edges[:height, :width]
    if not here.any() or here.all():
        return 0.0
    return float(gradient[here].mean() / (gradient[~here].mean() + _FLOOR))
