"""A file's samples as stored, before anything is made of them.

H W image size, S samples per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unetexp.errors import DataError

MAX_PIXELS = 2**26  # 8192 x 8192: above this, a broken header is likelier than an image

INSTEAD = "Replace it, or remove it (from a data set, together with its partner)."


@dataclass(frozen=True)
class Raster:
    """A file's samples as stored, in the stored orientation."""

    samples: npt.NDArray[Any]  # (H, W) or (H, W, S), integers or floats
    white: int | None = None  # full scale of samples of fewer than 8 bits; None: their type's
    palette: npt.NDArray[np.uint8] | None = None  # (256, 3); the samples are its indices
    alpha: tuple[int, ...] = ()  # which samples the file marks as transparency
    lossy: bool = False
    inverted: bool = False  # 0 is white
    nodata: float | None = None  # the value that stands for no measurement
    orientation: int = 1  # as in EXIF, not applied
    notes: tuple[str, ...] = ()  # what was assumed, in words that fit every file concerned

    @property
    def planes(self) -> npt.NDArray[Any]:
        """(H, W, S)."""
        return self.samples[..., np.newaxis] if self.samples.ndim == 2 else self.samples


def check_size(path: Path, height: int, width: int) -> None:
    """Raise DataError unless there are 1 to MAX_PIXELS pixels."""
    if not 0 < height * width <= MAX_PIXELS:
        raise too_large(path, f"{height} x {width}")


def too_large(path: Path, pixels: str) -> DataError:
    """The error about a file of so many `pixels`."""
    return DataError(
        f"{path}: the file says that it holds {pixels} pixels. Images of 1 to {MAX_PIXELS:,} "
        "pixels are accepted: cut it into tiles."
    )


def damaged(path: Path) -> DataError:
    """The error about a file that cannot be decoded."""
    return DataError(f"{path}: this file is truncated or damaged and cannot be decoded. {INSTEAD}")
