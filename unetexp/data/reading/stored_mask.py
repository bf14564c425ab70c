"""Masks as they are stored, and the plainest reading of them.

H W image size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unetexp.data.collection import Labels
from unetexp.data.labels import VOID
from unetexp.data.reading.formats.detection import read_rasters
from unetexp.data.reading.formats.tiff_pages import several_mask_pages
from unetexp.data.reading.orientation import upright
from unetexp.errors import DataError


@dataclass(frozen=True)
class StoredMask:
    """A mask's numbers or colours as stored."""

    values: npt.NDArray[Any]  # (H, W), or (H, W, 3) colours; any integer type, or floats
    palette: npt.NDArray[np.uint8] | None = None  # (256, 3): the values are its indices
    white: int | None = None  # the largest number that fits, of fewer than 8 bits
    lossy: bool = False  # compressed so that the numbers are not those that were written
    notes: tuple[str, ...] = ()


def read_stored_mask(
    path: Path,
    page: int | None = None,
    orientation: int | None = None,
    several: Callable[[int], DataError] | None = None,
) -> StoredMask:
    """The mask in a file (of a TIFF: on a page), turned as `orientation` says, or by its own tag.

    Samples beyond the third, or of a grey mask beyond the first, are left out. Raises DataError
    naming the file and what is wrong with it; of so many pages, what `several` says.
    """
    raster, *others = read_rasters(path, page, all_pages=page is None)
    if others:
        count = 1 + len(others)
        raise several(count) if several else several_mask_pages(path, count, as_samples=False)
    planes = raster.planes[..., :3] if raster.planes.shape[2] >= 3 else raster.planes[..., 0]
    turned = upright(planes, raster.orientation if orientation is None else orientation)
    return StoredMask(turned, raster.palette, raster.white, raster.lossy, raster.notes)


def labels_of(path: Path, mask: StoredMask) -> Labels:
    """The labels (H, W) uint8: the stored numbers, or the indices of a palette mask.

    Raises DataError, about the file `path`, for what holds no labels.
    """
    if mask.lossy:
        raise DataError(
            f"{path}: masks cannot be JPEG or another lossy format: lossy compression changes the "
            "labels along every edge. Export the masks again as PNG or TIFF, without JPEG in "
            "between."
        )
    values = mask.values
    if values.dtype.kind not in "u" or values.dtype.itemsize > 2:
        raise DataError(
            f"{path}: the mask holds {values.dtype} numbers. Labels go from 0 to 254, and 255 is "
            "void: store them as whole numbers of 8 or 16 bits without a sign."
        )
    if values.ndim == 3:
        values = _agreed(path, values)
    if values.max() > VOID:
        raise DataError(
            f"{path}: the mask holds the label {values.max()}. Labels go from 0 to 254, and 255 "
            "is void: store the index of the class in each pixel."
        )
    return values.astype(np.uint8)


def _agreed(path: Path, colours: npt.NDArray[Any]) -> npt.NDArray[Any]:
    differing = np.argwhere((colours != colours[..., :1]).any(axis=2))
    if len(differing):
        row, column = differing[0]
        raise DataError(
            f"{path}: the mask holds colours: row {row}, column {column} is "
            f"{tuple(colours[row, column].tolist())}. A mask holds the index of the class in each "
            "pixel: store it as a grey or palette PNG."
        )
    return colours[..., 0]
