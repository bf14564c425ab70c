"""Masks as they are stored, and the plainest reading of them.

H W image size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unetexp.data.reading.image_decoding import read_raster


@dataclass(frozen=True)
class StoredMask:
    """A mask's numbers or colours as stored."""

    values: npt.NDArray[Any]  # (H, W), or (H, W, 3) colours; any integer type, or floats
    palette: npt.NDArray[np.uint8] | None = None  # (256, 3): the values are its indices
    white: int | None = None  # the largest number that fits, of fewer than 8 bits
    lossy: bool = False  # compressed so that the numbers are not those that were written
    notes: tuple[str, ...] = ()


def read_stored_mask(path: Path) -> StoredMask:
    """The mask in a file. Raises DataError naming the file and what is wrong with it."""
    raster = read_raster(path)
    values = raster.pixels
    if values.ndim == 3:
        values = values[..., :3] if values.shape[2] >= 3 else values[..., 0]
    white = None if raster.bits in (8, 16) else 2**raster.bits - 1
    return StoredMask(values, raster.palette, white, raster.lossy)
