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
_SIDE_PX = 1024  # larger images are thinned out
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
    edges = _edges(mask)
    if not edges.any() or edges.all():
        return None
    return EdgeFit(_strength(image, edges), _strength(stored, edges))


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


def _strength(image: npt.NDArray[Any], edges: npt.NDArray[np.bool_]) -> float:
    """Mean gradient on the edges, relative to the mean elsewhere."""
    step = max(1, math.ceil(max(edges.shape) / _SIDE_PX))
    total = np.zeros(edges[::step, ::step].shape, np.float32)
    for channel in image:
        plane = np.nan_to_num(channel.astype(np.float32))
        for axis in (0, 1):
            ahead = np.roll(plane, -1, axis)[::step, ::step]
            behind = np.roll(plane, 1, axis)[::step, ::step]
            total += np.abs(ahead - behind)
    total[[0, -1]] = 0  # rolled around
    total[:, [0, -1]] = 0
    here = edges[::step, ::step]
    if not here.any() or here.all():
        return 0.0
    return float(total[here].mean() / (total[~here].mean() + _FLOOR))
