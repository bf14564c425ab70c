"""The pages of a TIFF that are images of their own: not overviews, thumbnails or masks of others.

A cloud-optimised GeoTIFF keeps smaller copies of its image as further pages.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from unetexp.errors import DataError

if TYPE_CHECKING:
    import tifffile

_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_MOST_BANDS = 32  # of an array (H, W, C) that was written as H pages of W x C


def real_pages(file: tifffile.TiffFile) -> tuple[list[tifffile.TiffPage], tuple[str, ...]]:
    """The pages that are images of their own, and a note about those left out."""
    pages = [page.aspage() for page in file.pages]
    kept = [page for page in pages if not page.subfiletype & (_REDUCED | _MASK)] or pages[:1]
    smaller = [page for page in kept[1:] if _is_smaller_copy(page, kept[0])]
    if len(smaller) == len(kept) - 1:
        kept = kept[:1]
    left_out = len(pages) - len(kept)
    note = "pages that are overviews, thumbnails or masks are left out: the full size is read"
    return kept, ((note,) if left_out else ())


def is_channels_last(file: tifffile.TiffFile, pages: list[tifffile.TiffPage]) -> bool:
    """Whether an array (H, W, C) was written as H pages of W x C, as tifffile does unless told.

    Its description then holds the array's shape.
    """
    if not file.is_shaped or len(file.series) != 1:
        return False
    shape: tuple[int, ...] = tuple(file.series[0].shape)
    return (
        len(shape) == 3
        and shape[0] == len(pages)
        and shape[2] <= min(_MOST_BANDS, *(side // 2 for side in shape[:2]))
        and tuple(pages[0].shape) == shape[1:]
    )


def several_pages(path: Path, count: int) -> DataError:
    """The error about a TIFF of several pages whose meaning is not known."""
    return DataError(
        f"{path}: this TIFF holds {count} pages. Each may be an image of its own, with a page of "
        "the mask: --set data.pages=samples. Or they are the channels of one image: "
        "--set data.pages=channels. Or store each page as its own file."
    )


def several_mask_pages(path: Path, count: int, *, as_samples: bool) -> DataError:
    """The error about a mask of several pages; `as_samples`: its image has as many."""
    samples = " If each belongs to a page of the image: --set data.pages=samples."
    return DataError(
        f"{path}: this mask holds {count} pages, and a mask is one. If each page is a class, write "
        "one page from them, which holds in each pixel the number of its class and 0 outside all."
        f"{samples if as_samples else ''}"
    )


def _is_smaller_copy(page: tifffile.TiffPage, full: tifffile.TiffPage) -> bool:
    """Whether the page has the form of an overview that is not marked as one."""
    if page.imagewidth >= full.imagewidth or page.samplesperpixel != full.samplesperpixel:
        return False
    height = full.imagelength * page.imagewidth / full.imagewidth
    return bool(abs(page.imagelength - height) <= 1 + full.imagelength / full.imagewidth)
