"""What is kept of each sample once its files have been decoded: small numbers, no pixels.

C channels, H W image size.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from unetexp.data.collection import Labels, RawImage

THUMB_PX = 64
_MOST_CHANNELS = 4  # whose mean is the thumbnail
_MOST_VALUES = 8  # stored values whose objects are measured, the most common ones
_OBJECTS_PX = 1024  # larger masks are thinned out before their objects are counted
_NEIGHBOURS = np.ones((3, 3), np.bool_)
_ROBUST = 0.9999  # share of the pixels up to the robust maximum
_HOT_PIXELS = 3  # that it leaves out at least


@dataclass(frozen=True)
class PixelFacts:
    """What the pixels of one pair say."""

    shape: tuple[int, int, int]  # C, H, W
    bits: int
    image_digest: bytes  # of the decoded pixels: the same after another lossless compression
    mask_digest: bytes
    thumb: npt.NDArray[np.float16]  # (THUMB_PX, THUMB_PX), mean 0 and deviation 1; 0: constant
    low: int  # smallest pixel value
    high: int  # largest
    robust_high: int  # of 16-bit images: not reached by a few hot pixels
    grey_as_colour: bool  # three equal channels
    mask_shape: tuple[int, int]
    counts: npt.NDArray[np.int64]  # (256,) pixels of each stored value
    objects: dict[int, npt.NDArray[np.int64]]  # stored value -> area of each object in pixels

    @property
    def constant(self) -> bool:
        """Whether all pixels have one value."""
        return self.low == self.high

    @property
    def sizes_agree(self) -> bool:
        """Whether image and mask are of one size."""
        return self.shape[1:] == self.mask_shape


@dataclass(frozen=True)
class SampleFacts:
    """One pair: where it lies, and what was found in it or why it cannot be read."""

    name: str
    split: str
    images: tuple[Path, ...]
    mask: Path
    part: str = ""
    group: str = ""
    pixels: PixelFacts | None = None  # None: not readable
    fault: str = ""  # code of the finding, where it is not readable
    message: str = ""  # what the reader said
    fault_file: Path | None = None
    orientation: int = 1  # EXIF tag of the image
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The image file for messages, with its part."""
        return f"{self.images[0]}{f' ({self.part})' if self.part else ''}"

    @property
    def mask_label(self) -> str:
        """The mask file for messages, with its part."""
        return f"{self.mask}{f' ({self.part})' if self.part else ''}"


def pixel_facts(image: RawImage, mask: Labels) -> PixelFacts:
    """The facts of an image (C, H, W) and a mask (H, W)."""
    low, high = int(image.min()), int(image.max())
    counts = np.array(Image.fromarray(np.ascontiguousarray(mask)).histogram(), np.int64)
    return PixelFacts(
        shape=(image.shape[0], image.shape[1], image.shape[2]),
        bits=image.itemsize * 8,
        image_digest=_digest(image),
        mask_digest=_digest(mask),
        thumb=thumbnail(image),
        low=low,
        high=high,
        robust_high=high if image.itemsize == 1 else _robust_high(image),
        grey_as_colour=image.shape[0] == 3 and low != high and _equal_channels(image),
        mask_shape=(mask.shape[0], mask.shape[1]),
        counts=counts,
        objects=_objects(mask, counts),
    )


def thumbnail(image: RawImage) -> npt.NDArray[np.float16]:
    """The image (C, H, W) as a small grey picture with mean 0 and deviation 1, or all 0."""
    planes = [_reduced(image[channel]) for channel in range(min(len(image), _MOST_CHANNELS))]
    grey = np.mean(planes, axis=0, dtype=np.float32)
    deviation = float(grey.std())
    if deviation < 1e-6:
        return np.zeros((THUMB_PX, THUMB_PX), np.float16)
    return np.asarray((grey - grey.mean()) / deviation, np.float16)


def _reduced(plane: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """(H, W) -> (THUMB_PX, THUMB_PX), by the mean over areas."""
    plane = np.ascontiguousarray(plane)
    picture = Image.fromarray(plane if plane.dtype == np.uint8 else plane.astype(np.float32))
    double = picture.resize((2 * THUMB_PX, 2 * THUMB_PX), Image.Resampling.BOX)
    quarters = np.asarray(double, np.float32).reshape(THUMB_PX, 2, THUMB_PX, 2)
    mean: npt.NDArray[np.float32] = quarters.mean(axis=(1, 3))
    return mean


def _digest(pixels: npt.NDArray[Any]) -> bytes:
    digest = hashlib.blake2b(repr((pixels.shape, pixels.dtype.str)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def _robust_high(image: RawImage) -> int:
    counts = np.bincount(image.reshape(-1))
    left_out = max(_HOT_PIXELS, (1 - _ROBUST) * image.size)
    return int(np.searchsorted(np.cumsum(counts), image.size - left_out))


def _equal_channels(image: RawImage) -> bool:
    first = image[:, :1]  # most colour images differ in their first row
    if (first[0] != first[1]).any() or (first[0] != first[2]).any():
        return False
    return bool((image[0] == image[1]).all() and (image[0] == image[2]).all())


def _objects(mask: Labels, counts: npt.NDArray[np.int64]) -> dict[int, npt.NDArray[np.int64]]:
    """The areas of the connected objects of each stored value but 0, on a thinned-out mask."""
    step = -(-max(mask.shape) // _OBJECTS_PX)
    thin = mask[::step, ::step]
    found = np.flatnonzero(counts[1:]) + 1
    common = found[np.argsort(-counts[found], kind="stable")][:_MOST_VALUES]
    return {int(value): _areas(thin == value) * step**2 for value in common}


def _areas(member: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    rows, columns = np.flatnonzero(member.any(axis=1)), np.flatnonzero(member.any(axis=0))
    if not len(rows):
        return np.zeros(0, np.int64)
    inside = member[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    labels, _ = ndimage.label(inside, _NEIGHBOURS)
    areas: npt.NDArray[np.int64] = np.bincount(labels.reshape(-1))[1:]
    return areas
