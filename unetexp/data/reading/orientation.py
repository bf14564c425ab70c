"""Orientation as EXIF tells it: 1 is upright, 2 to 8 are mirrored and turned."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt


def upright(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """`pixels` (H, W, ...) rotated and mirrored as EXIF orientation 1 to 8 says; a view."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def is_turned(orientation: int) -> bool:
    """Whether the orientation changes anything."""
    return 2 <= orientation <= 8


def swaps_sides(orientation: int) -> bool:
    """Whether height becomes width."""
    return 5 <= orientation <= 8
