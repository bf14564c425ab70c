"""TIFF and BigTIFF: any number of samples, integers and floats, one page or several.

H W image size, S samples per pixel.
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from unetexp.data.reading.formats.pillow_formats import CMYK_NOTE, ORIENTATION
from unetexp.data.reading.formats.raster import Raster, check_size, damaged
from unetexp.data.reading.formats.tiff_pages import is_channels_last, real_pages, several_pages
from unetexp.errors import DataError

if TYPE_CHECKING:
    import tifffile

TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_LOSSY = {6, 7, 33003, 33004, 33005, 34712, 50001, 50002}  # JPEG, JPEG 2000, WebP, JPEG XL
_ALPHA = (1, 2)  # ExtraSamples: associated, unassociated
_GDAL_NODATA = 42113
_COLOURS = {"RGB": 3, "YCBCR": 3, "SEPARATED": 4}  # samples that are no extra ones
_READ = ("MINISBLACK", "MINISWHITE", "PALETTE", *_COLOURS)
_CHANNELS_LAST = "rows that were written as pages are put together: an array (H, W, C) in a TIFF"


def read_tiff(
    path: Path, data: bytes, page: int | None = None, *, all_pages: bool = False
) -> list[Raster]:
    """The page, or with `all_pages` all that are images of their own.

    Raises DataError for several pages without `page` or `all_pages`, for a `page` that is not
    there and for what has no meaning as an image; anything for a damaged file.
    """
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        pages, notes = real_pages(file)
        if is_channels_last(file, pages):
            return [_put_together(path, file, pages, len(data))]
        if page is not None:
            if page >= len(pages):
                raise DataError(f"{path}: page {page} is not among the {len(pages)} of this TIFF.")
            pages = [pages[page]]
        elif len(pages) > 1 and not all_pages:
            raise several_pages(path, len(pages))
        return [_raster(path, each, len(data), notes) for each in pages]


def page_count(path: Path) -> int:
    """How many images a file holds: pages of a TIFF, else 1. Raises DataError if unreadable."""
    try:
        with path.open("rb") as file:
            if not file.read(4).startswith(TIFFS):
                return 1
        import tifffile

        with tifffile.TiffFile(path) as tiff:
            pages, _ = real_pages(tiff)
            return 1 if is_channels_last(tiff, pages) else len(pages)
    except OSError as error:
        raise DataError(f"{path}: this file cannot be read: {error.strerror}.") from None
    except Exception as error:  # tifffile may raise anything on damaged bytes
        raise damaged(path) from error


def _put_together(
    path: Path, file: tifffile.TiffFile, pages: list[tifffile.TiffPage], size: int
) -> Raster:
    rows = [_raster(path, page, size, ()) for page in pages]
    return dataclasses.replace(
        rows[0], samples=np.stack([row.samples for row in rows]), notes=(_CHANNELS_LAST,)
    )


def _raster(path: Path, page: tifffile.TiffPage, size: int, notes: tuple[str, ...]) -> Raster:
    check_size(path, page.imagelength, page.imagewidth)
    _check_layout(path, page)
    places = zip(page.dataoffsets, page.databytecounts, strict=True)
    if any(offset + count > size for offset, count in places):
        raise damaged(path)
    samples = page.asarray()
    if page.axes == "SYX":
        samples = samples.transpose(1, 2, 0)
    if samples.dtype == np.bool_:
        samples = samples.astype(np.uint8)
    photometric = page.photometric.name
    if photometric == "SEPARATED":
        samples, notes = _without_inks(samples), (*notes, CMYK_NOTE)
    tag = page.tags.get(ORIENTATION)
    return Raster(
        samples.astype(samples.dtype.newbyteorder("=")),
        white=2**page.bitspersample - 1 if page.bitspersample < 8 else None,
        palette=_palette(page),
        alpha=_alpha(page),
        lossy=page.compression in _LOSSY,
        inverted=photometric == "MINISWHITE",
        nodata=_nodata(page),
        orientation=tag.value if tag else 1,
        notes=notes,
    )


def _check_layout(path: Path, page: tifffile.TiffPage) -> None:
    photometric, samples = page.photometric.name, page.samplesperpixel
    numbers = page.dtype is not None and page.dtype.kind in "buif" and page.dtype.itemsize <= 8
    fits = samples >= _COLOURS.get(photometric, 1) and photometric in _READ
    if photometric == "SEPARATED":
        fits = samples == 4 and page.dtype == np.uint8
    if not numbers or not fits or page.axes not in ("YX", "YXS", "SYX"):
        raise DataError(
            f"{path}: this TIFF holds {page.dtype} numbers as {photometric} with {samples} "
            "samples per pixel. Store it as grey, RGB, palette or bands: whole numbers of 8 to "
            "32 bits, or floats."
        )


def _alpha(page: tifffile.TiffPage) -> tuple[int, ...]:
    """The samples that ExtraSamples marks as alpha; it tells of the last ones."""
    extra = tuple(page.extrasamples)
    first = page.samplesperpixel - len(extra)
    return tuple(first + place for place, kind in enumerate(extra) if int(kind) in _ALPHA)


def _without_inks(samples: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """CMYK (H, W, 4) -> RGB (H, W, 3), as Pillow converts it."""
    from PIL import Image

    return np.asarray(Image.fromarray(np.ascontiguousarray(samples), mode="CMYK").convert("RGB"))


def _nodata(page: tifffile.TiffPage) -> float | None:
    tag = page.tags.get(_GDAL_NODATA)
    try:
        return float(str(tag.value).strip("\0 ")) if tag else None
    except ValueError:
        return None


def _palette(page: tifffile.TiffPage) -> npt.NDArray[np.uint8] | None:
    if page.photometric.name != "PALETTE" or page.colormap is None:
        return None
    colours = (page.colormap.T >> 8).astype(np.uint8)  # stored with 16 bits
    palette = np.zeros((max(256, len(colours)), 3), np.uint8)
    palette[: len(colours)] = colours
    return palette
