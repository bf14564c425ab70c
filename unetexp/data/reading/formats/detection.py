"""Which format a file has: its first bytes decide, not its name."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from unetexp.data.reading.formats.netpbm import read_netpbm
from unetexp.data.reading.formats.pillow_formats import read_with_pillow
from unetexp.data.reading.formats.png import PNG, read_png
from unetexp.data.reading.formats.raster import INSTEAD, Raster, damaged, too_large
from unetexp.data.reading.formats.tiff import TIFFS, read_tiff
from unetexp.errors import DataError

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".pbm", ".pgm", ".ppm"),
    *(".pnm", ".jp2", ".j2k", ".avif", ".tga", ".pcx", ".sgi", ".qoi", ".psd", ".dds"),
)
"""The endings of files that are taken for images, in lower case."""

_PILLOW = {  # first bytes -> Pillow's name
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"\0\0\0\x0cjP": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
    b"8BPS": "PSD",
    b"qoif": "QOI",
    b"\x01\xda": "SGI",
    b"\x0a\x05\x01": "PCX",
    b"DDS ": "DDS",
    b"\x59\xa6\x6a\x95": "SUN",
}
_NETPBM = (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf", b"PF")


def read_rasters(path: Path, page: int | None = None, *, all_pages: bool = False) -> list[Raster]:
    """The samples of a file: one raster, or one for each page of a TIFF with `all_pages`.

    `page` is the number of a TIFF's page, from 0; without it, a TIFF of several is refused.
    Raises DataError naming the file and what is wrong with it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: this file cannot be read: {error.strerror}.") from None
    return decode_rasters(path, data, page, all_pages=all_pages)


def decode_rasters(
    path: Path, data: bytes, page: int | None = None, *, all_pages: bool = False
) -> list[Raster]:
    """As `read_rasters`, from the bytes of a file; `path` is for messages."""
    try:
        if data.startswith(TIFFS):
            return read_tiff(path, data, page, all_pages=all_pages)
        return [_decode(path, data)]
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise too_large(path, "far too many") from None
    except Exception as error:  # a decoder may raise anything on damaged bytes
        raise damaged(path) from error


def _decode(path: Path, data: bytes) -> Raster:
    if data.startswith(PNG):
        return read_png(path, data)
    if data.startswith(_NETPBM) and data[2:3].isspace():
        return read_netpbm(path, data)
    name = _pillow_name(path, data)
    if name is None:
        what = (
            "is empty"
            if not data
            else "is not an image: its content is not PNG, JPEG or TIFF, nor WebP, BMP, GIF, "
            "PNM or another format that Pillow reads"
        )
        raise DataError(f"{path}: this file {what}. {INSTEAD}")
    return read_with_pillow(path, data, name)


def _pillow_name(path: Path, data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF"
    for first, name in _PILLOW.items():
        if data.startswith(first):
            return name
    return "TGA" if path.suffix.lower() == ".tga" and data else None  # has no first bytes
