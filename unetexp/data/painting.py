"""Labels in colour over their image. Without torch, as a model is served without it, too.

C channels, H W image size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetexp.data.labels import VOID

RgbImage = NDArray[np.uint8]
Colour = tuple[int, int, int]

# Okabe and Ito's palette, made for colour-blind readers; the background is not painted.
_PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
VOID_COLOUR: Colour = (128, 128, 128)


def colour_of(label: int) -> Colour:
    """The colour of a class other than 0, which is not painted."""
    return _PALETTE[(label - 1) % len(_PALETTE)]


def hex_colour(colour: Colour) -> str:
    """The colour as #rrggbb."""
    return "#" + "".join(f"{part:02x}" for part in colour)


def displayable(image: NDArray[Any], image_max: int) -> RgbImage:
    """An image (C, H, W) of any depth as 8-bit RGB (H, W, 3).

    Of three or more channels the first three are red, green and blue, else the first is grey.
    """
    scaled = image[: 3 if len(image) >= 3 else 1].astype(np.float32) * np.float32(255 / image_max)
    grey_or_rgb = scaled.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(np.broadcast_to(grey_or_rgb, (*grey_or_rgb.shape[:2], 3)))


def paint(image: RgbImage, labels: NDArray[np.integer], strength: float = 0.6) -> RgbImage:
    """Labels (H, W) in colour over an image (H, W, 3); class 0 is not painted, void is grey."""
    palette = np.array(_PALETTE, dtype=np.float32)
    colours = palette[(labels.astype(np.int64) - 1) % len(palette)]
    colours[labels == VOID] = VOID_COLOUR
    mixed = image * (1 - strength) + colours * strength
    return np.where((labels == 0)[..., None], image, mixed.astype(np.uint8))
