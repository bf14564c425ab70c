"""Thumbnails of offenders: the image with the outline of its mask and the regions meant.

C channels, H W image size.
"""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from unetexp.data.checks.examine import Item
from unetexp.data.checks.finding import Offender
from unetexp.data.collection import Labels, RawImage
from unetexp.data.labels import VOID
from unetexp.errors import DataError

_SIDE_PX = 288
_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0))
_VOID_COLOUR, _REGION = (150, 150, 150), (255, 0, 80)

Rgb = npt.NDArray[np.uint8]


def drawn(item: Item, offender: Offender) -> str | None:
    """A data URI of the thumbnail; None if the image cannot be decoded."""
    try:
        pixels, mask = item.load()
    except DataError:
        return None
    image = _displayable(pixels)
    height, width = image.shape[:2]
    scale = _SIDE_PX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    kind = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
    picture = Image.fromarray(image).resize(size, kind)
    small = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    picture = Image.fromarray(outlined(np.array(picture), small, offender.values))
    brush = ImageDraw.Draw(picture)
    for top, left, bottom, right in offender.regions:
        box = (left * scale - 2, top * scale - 2, right * scale + 1, bottom * scale + 1)
        brush.rectangle(box, outline=_REGION, width=2)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def outlined(image: Rgb, mask: Labels, values: tuple[int, ...] = ()) -> Rgb:
    """The image (H, W, 3) with the inner rim of each area of the mask (H, W) in its colour."""
    rim = np.zeros(mask.shape, np.bool_)
    rim[1:] |= mask[1:] != mask[:-1]
    rim[:-1] |= mask[1:] != mask[:-1]
    rim[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    rim[:, :-1] |= mask[:, 1:] != mask[:, :-1]
    shown = np.isin(mask, values) if values else mask > 0
    colours = np.array([_colour(value) for value in range(VOID + 1)], np.uint8)
    return np.where((rim & shown)[..., np.newaxis], colours[mask], image)


def _colour(value: int) -> tuple[int, int, int]:
    return _VOID_COLOUR if value == VOID else _COLOURS[(value - 1) % len(_COLOURS)]


def _displayable(image: RawImage) -> Rgb:
    """(C, H, W) of any depth -> (H, W, 3), stretched where it would be nearly black."""
    pixels = image.astype(np.float32)
    low, high = np.percentile(pixels[:, ::4, ::4], (0.5, 99.5))
    if image.itemsize == 1 and high > 100:
        low, high = 0.0, 255.0
    scaled = ((pixels - low) * (255 / max(high - low, 1e-6))).clip(0, 255).astype(np.uint8)
    three = scaled[:3] if len(scaled) >= 3 else np.repeat(scaled[:1], 3, axis=0)
    return np.ascontiguousarray(three.transpose(1, 2, 0))
