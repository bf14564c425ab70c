"""What Pillow decodes as it is stored: JPEG, WebP, BMP, GIF, JPEG 2000, AVIF and others."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from unetexp.data.reading.formats.raster import Raster, check_size
from unetexp.errors import DataError

ORIENTATION = 0x0112  # the EXIF and TIFF tag
CMYK_NOTE = "CMYK is converted to RGB"
_GREY_PALETTE_NOTE = "a palette of greys is read as its grey values"

_ALPHA = {"LA": (1,), "PA": (1,), "RGBA": (3,)}
_TYPES = {"I;16": np.uint16, "I;16B": np.uint16, "I": np.int32, "F": np.float32}
_NUMBERED_ANEW = ("GIF", "BMP")  # whose writers number the palette's entries as they please


def read_with_pillow(path: Path, data: bytes, name: str) -> Raster:
    """The samples of a file of the format that Pillow calls `name`.

    Raises DataError for an animated one and for pixel formats without a meaning here; anything
    for a damaged one.
    """
    with Image.open(io.BytesIO(data), formats=(name,)) as image:
        check_size(path, image.height, image.width)
        if name != "JPEG" and getattr(image, "n_frames", 1) > 1 and name != "PSD":
            raise DataError(
                f"{path}: this {name} is animated, with {image.n_frames} frames. "  # type: ignore[attr-defined]
                "Store each frame as its own file."
            )
        orientation = image.getexif().get(ORIENTATION, 1)
        raster = pillow_raster(path, image)
        if image.mode == "P":
            raster = _with_palette(raster, palette_of(image), name)
    return dataclasses.replace(raster, lossy=_is_lossy(name, data), orientation=orientation)


def pillow_raster(path: Path, image: Image.Image) -> Raster:
    """The samples of an image in one of Pillow's modes; DataError for those not known here."""
    mode = image.mode
    if mode in ("CMYK", "YCbCr", "RGBX"):
        notes = (CMYK_NOTE,) if mode == "CMYK" else ()
        return Raster(np.asarray(image.convert("RGB")), notes=notes)
    if mode in _TYPES:
        return Raster(np.asarray(image).astype(_TYPES[mode]))
    if mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise DataError(
            f"{path}: the pixel format {mode} is not supported. Store it as grey, RGB or "
            "palette, with 8 or 16 bits."
        )
    samples = np.asarray(image).astype(np.uint8)
    return Raster(samples, 1 if mode == "1" else None, alpha=_ALPHA.get(mode, ()))


def palette_of(image: Image.Image) -> npt.NDArray[np.uint8]:
    """(256, 3) of an image in mode P; 0 where there are fewer colours."""
    colours = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colours)] = colours
    return palette


def _with_palette(raster: Raster, palette: npt.NDArray[np.uint8], name: str) -> Raster:
    used = palette[np.unique(raster.samples)]
    if name in _NUMBERED_ANEW and (used == used[:, :1]).all():
        greys = palette[raster.samples, 0]
        return Raster(greys, notes=(_GREY_PALETTE_NOTE,))
    return dataclasses.replace(raster, palette=palette)


def _is_lossy(name: str, data: bytes) -> bool:
    if name == "WEBP":  # chunks: VP8L is the lossless bit stream, VP8 the lossy one
        return b"VP8 " in _chunks(data)
    if name == "JPEG2000":  # the wavelet of the coding style: 1 is the reversible one
        start = data.find(b"\xff\x52")
        return data[start + 13 : start + 14] != b"\x01"
    return name in ("JPEG", "AVIF", "DDS")


def _chunks(data: bytes) -> list[bytes]:
    """The names of a RIFF file's chunks."""
    names, place = [], 12
    while place + 8 <= len(data):
        names.append(data[place : place + 4])
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        place += 8 + size + size % 2
    return names
