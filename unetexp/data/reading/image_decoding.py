"""Decoding of image files to channels.

Values are kept as stored: no colour management, and rescaling only of images with fewer than
8 bits, and of those for which a range is given.

C channels, H W image size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unetexp.data.collection import Labels, RawImage
from unetexp.data.reading.channels import Channels, alpha_may_be_band, channels_of, selected
from unetexp.data.reading.formats.detection import decode_rasters, read_rasters
from unetexp.data.reading.formats.raster import Raster
from unetexp.data.reading.input_form import AS_STORED, InputForm
from unetexp.data.reading.orientation import upright
from unetexp.data.reading.stored_mask import labels_of, read_stored_mask
from unetexp.data.reading.value_ranges import scaled
from unetexp.errors import DataError


@dataclass(frozen=True)
class StoredImage:
    """An image as it is read from its file or files, before any scaling."""

    parts: tuple[Channels | None, ...]  # (C, H, W) of each file; None: there is no file
    orientation: int = 1  # the tag of the first file, which is applied unless exif is none
    notes: tuple[str, ...] = ()  # what was assumed, in words that fit every file concerned
    dropped_of: int = 0  # bands of the file, where one left out as alpha may hold something else


def read_image(path: Path, form: InputForm = AS_STORED, page: int | None = None) -> RawImage:
    """The image (C, H, W) uint8 or uint16, rotated as its EXIF tag says, without alpha.

    With a `form` it is read as that says. Raises DataError naming the file and what is wrong with
    it, also for numbers that need a range where `form` has none.
    """
    return _scaled(path, read_stored_image([path], form, page), form)


def decode_image(name: str, data: bytes, form: InputForm = AS_STORED) -> RawImage:
    """As `read_image`, from the bytes of a file; `name` is for messages."""
    path = Path(name)
    rasters = decode_rasters(path, data, all_pages=form.pages == "channels")
    return _scaled(path, _stored([path], [rasters], form), form)


def read_images(paths: Sequence[Path | None], form: InputForm) -> RawImage:
    """As `read_image`, of several files that are the channels of one image; None: there is none."""
    first = next(path for path in paths if path is not None)
    return _scaled(first, read_stored_image(paths, form), form)


def read_mask(path: Path) -> Labels:
    """The labels (H, W) uint8: the stored numbers, or the indices of a palette mask.

    Raises DataError naming the file and what is wrong with it.
    """
    return labels_of(path, read_stored_mask(path))


def read_stored_image(
    paths: Sequence[Path | None], form: InputForm, page: int | None = None
) -> StoredImage:
    """The channels of one file or several, as stored. Raises DataError."""
    all_pages = form.pages == "channels"
    rasters = [read_rasters(p, page, all_pages=all_pages) if p else None for p in paths]
    return _stored(paths, rasters, form)


def _stored(
    paths: Sequence[Path | None], rasters: Sequence[list[Raster] | None], form: InputForm
) -> StoredImage:
    single = len(paths) == 1
    with_alpha = single and form.bands is not None
    parts: list[Channels | None] = []
    notes: list[str] = []
    for path, pages in zip(paths, rasters, strict=True):
        if path is None or pages is None:
            parts.append(None)
            continue
        image, found = _together(path, pages, form, with_alpha=with_alpha)
        parts.append(selected(path, image, form.bands) if single else image)
        notes += found
    _check_sizes(paths, parts)
    first = next((pages[0].orientation for pages in rasters if pages), 1)
    kept = single and not with_alpha and rasters[0]
    bands = [page.planes.shape[2] for page in kept or () if alpha_may_be_band(page)]
    return StoredImage(tuple(parts), first, tuple(dict.fromkeys(notes)), max(bands, default=0))


def _together(
    path: Path, pages: Sequence[Raster], form: InputForm, *, with_alpha: bool
) -> tuple[Channels, tuple[str, ...]]:
    """The channels of all pages, upright."""
    images: list[Channels] = []
    notes: list[str] = []
    for page in pages:
        image, found = channels_of(page, with_alpha=with_alpha)
        if form.exif != "none":
            image = upright(image.transpose(1, 2, 0), page.orientation).transpose(2, 0, 1)
        images.append(image)
        notes += found
    sizes = sorted({image.shape[1:] for image in images})
    if len(sizes) > 1:
        raise DataError(
            f"{path}: pages that are channels must be of one size, and these are "
            f"{' and '.join(f'{height} x {width}' for height, width in sizes)}."
        )
    image = images[0] if len(images) == 1 else np.concatenate(images)
    return np.ascontiguousarray(image), tuple(dict.fromkeys(notes))


def _check_sizes(paths: Sequence[Path | None], parts: Sequence[Channels | None]) -> None:
    there = [(path, part) for path, part in zip(paths, parts, strict=True) if part is not None]
    for path, part in there[1:]:
        first, reference = there[0]
        if part.shape[1:] != reference.shape[1:]:
            raise DataError(
                f"{path} is {part.shape[1]} x {part.shape[2]} pixels (height x width) and {first} "
                f"{reference.shape[1]} x {reference.shape[2]}: files that are channels of one "
                "image must be of one size."
            )


def _scaled(path: Path, stored: StoredImage, form: InputForm) -> RawImage:
    """The image of the stored parts as `form` says; DataError where it does not say enough."""
    wide = [p.dtype for p in stored.parts if p is not None and p.dtype not in (np.uint8, np.uint16)]
    if form.ranges is None and wide:
        raise DataError(
            f"{path}: this file holds {wide[0]} numbers, and it is not known which are black and "
            "white. Store it with 8 or 16 bits, or read it with a model or data set that has a "
            "range: --set 'data.value_range=[LOW, HIGH]'."
        )
    return scaled(stored.parts, form)
