"""The working size: images and masks are scaled once, and predictions are scaled back.

Images are averaged over areas with Pillow's BOX filter: each pixel counts in one place only, it
works on 8 bits as they are (torch's `area` needs four times the memory in floats, and its cells
overlap), and it is the same wherever Pillow is. On an axis that grows both axes are interpolated.

A pixel of a mask gets the label with most votes among the pixels of its cell, so no label is
invented. The votes of all classes but the mask's most common one count double, because thin and
small things lose plain majorities: of lines 2 to 4 pixels wide, scaled to an eighth, 55 % survive
a plain vote and 89 % this one, with an IoU of 0.21 and 0.34 once scaled back (nearest pixel: 0.29,
and dotted lines); blobs lose 0.003. A tie goes to the label that is rarer in the mask.

C channels, H W image size, h w working size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BeforeValidator, Field

from unetexp.component import Component
from unetexp.data.collection import Labels, RawImage
from unetexp.data.labels import VOID
from unetexp.errors import ConfigError

VERSION = 1  # increased when the same image is scaled to other pixels than before

_FORMS = (
    "Give the longest side in pixels (1024), height and width ([512, 768]), or a factor "
    "({scale: 0.25})"
)
_MOST_PX = 2**14


class Scale(Component):
    """A factor for both sides: every image keeps what a pixel shows of the others' pixels."""

    scale: float = Field(gt=0, le=1, description="working size / size of the image")


Resize: TypeAlias = int | tuple[int, int] | Scale


def resize_value(given: object) -> Resize | None:
    """The one form of a resize setting: int, (height, width) or Scale. Raises ConfigError."""
    if given is None or isinstance(given, Scale):
        return given
    if isinstance(given, int) and _is_side(given):
        return given
    if isinstance(given, list | tuple) and len(given) == 2 and all(map(_is_side, given)):
        return given[0], given[1]
    if isinstance(given, Mapping) and set(given) == {"scale"}:
        factor = given["scale"]
        if isinstance(factor, int | float) and not isinstance(factor, bool) and 0 < factor <= 1:
            return Scale(scale=float(factor))
    raise ConfigError(
        f"{given!r} is not a working size. {_FORMS}; sides go from 1 to {_MOST_PX}, factors from "
        "0 to 1. null: the images' own size. For example --set data.resize=1024"
    )


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_PX


ResizeSetting: TypeAlias = Annotated[Resize | None, BeforeValidator(resize_value)]


def working_size(resize: Resize | None, height: int, width: int) -> tuple[int, int]:
    """The size (h, w) at which an image of that size is worked with; at least one pixel."""
    if resize is None:
        return height, width
    if isinstance(resize, tuple):
        return resize
    factor = resize.scale if isinstance(resize, Scale) else min(1.0, resize / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def resize_text(resize: Resize) -> str:
    """The setting in words."""
    if isinstance(resize, Scale):
        return f"{resize.scale:g} times their size"
    if isinstance(resize, tuple):
        return f"{resize[0]} x {resize[1]} pixels"
    return f"at most {resize} pixels a side"


def plain(resize: Resize | None) -> Any:
    """The setting as JSON-safe data."""
    if isinstance(resize, Scale):
        return resize.tree()
    return list(resize) if isinstance(resize, tuple) else resize


def resized_image(image: RawImage, size: tuple[int, int]) -> RawImage:
    """The image (C, H, W) at `size`, of its own type, rounded to whole values."""
    if image.shape[1:] == size:
        return image
    shrinks = size[0] <= image.shape[1] and size[1] <= image.shape[2]
    how = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    return np.stack([_plane(plane, size, how) for plane in image])


def _plane(plane: RawImage, size: tuple[int, int], how: Image.Resampling) -> RawImage:
    if plane.dtype == np.uint8:
        return np.asarray(_scaled(plane, size, how))
    scaled = np.asarray(_scaled(plane.astype(np.float32), size, how))
    limits = np.iinfo(plane.dtype)
    whole: RawImage = np.rint(scaled).clip(limits.min, limits.max).astype(plane.dtype)
    return whole


def resized_mask(mask: Labels, size: tuple[int, int]) -> Labels:
    """The classes (H, W) at `size`: those with most votes in each cell."""
    if mask.shape == size:
        return mask
    counts = np.bincount(mask.reshape(-1))
    labels = np.flatnonzero(counts)
    rarest_first = labels[np.argsort(counts[labels], kind="stable")]
    chosen = np.full(size, rarest_first[-1], np.uint8)
    most = np.zeros(size, np.uint8)
    for label in rarest_first if len(labels) > 1 else ():
        # A share of 254: two shares nearer to each other than that are a tie.
        weight = _VOTE if label in (VOID, rarest_first[-1]) else 2 * _VOTE
        votes = np.asarray(_scaled((mask == label).view(np.uint8) * np.uint8(weight), size, _BOX))
        wins = votes > most
        chosen[wins], most[wins] = label, votes[wins]
    return chosen


_BOX, _VOTE = Image.Resampling.BOX, 127


def _scaled(plane: npt.NDArray[Any], size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    return Image.fromarray(plane).resize((size[1], size[0]), how)
