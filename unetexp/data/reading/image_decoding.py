"""Decoding of image and mask files: PNG, JPEG and TIFF, 8 and 16 bit.

The first bytes of a file decide its format, not its name. Values are kept as stored: no colour
management, and rescaling only of images with fewer than 8 bits.

C channels (1 or 3), H W image size, S samples per pixel as stored (1 to 4).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_png

from unetexp.data.collection import Labels, RawImage
from unetexp.data.labels import VOID
from unetexp.errors import DataError

if TYPE_CHECKING:
    import tifffile

MAX_PIXELS = 2**26  # 8192 x 8192: above this, a broken header is likelier than an image

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TAIL = 2**16  # last bytes in which to find the end of a PNG: some programs append data
_ORIENTATION = 0x0112  # the EXIF and TIFF tag
_LOSSY_TIFF = {6, 7, 33003, 33004, 33005, 34712, 50001, 50002}  # JPEG, JPEG 2000, WebP, JPEG XL
_INSTEAD = "Replace it, or remove it (from a data set, together with its partner)."
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


@dataclass(frozen=True)
class _Raster:
    """A file's pixels as stored, upright."""

    pixels: RawImage  # (H, W) or (H, W, S)
    bits: int  # per sample; 8 or 16 fill their type, fewer do not
    palette: Labels | None = None  # (256, 3)
    lossy: bool = False
    inverted: bool = False  # 0 is white


def read_image(path: Path) -> RawImage:
    """The image (C, H, W) uint8 or uint16, rotated as its EXIF tag says, without alpha.

    Raises DataError naming the file and what is wrong with it.
    """
    return _image(read_raster(path))


def decode_image(name: str, data: bytes) -> RawImage:
    """As `read_image`, from the bytes of a file; `name` is for messages."""
    return _image(_decode(Path(name), data))


def _image(raster: _Raster) -> RawImage:
    pixels = raster.pixels
    if raster.palette is not None:
        pixels = raster.palette[pixels]
    else:
        if raster.inverted:
            pixels = (2**raster.bits - 1) - pixels
        if raster.bits < 8:
            pixels = pixels * np.uint8(255 // (2**raster.bits - 1))
    if pixels.ndim == 2:
        pixels = pixels[..., np.newaxis]
    channels = 3 if pixels.shape[2] >= 3 else 1
    return np.ascontiguousarray(pixels[..., :channels].transpose(2, 0, 1))


def read_mask(path: Path) -> Labels:
    """The labels (H, W) uint8: the stored numbers, or the indices of a palette mask.

    Raises DataError naming the file and what is wrong with it.
    """
    raster = read_raster(path)
    if raster.lossy:
        raise DataError(
            f"{path}: masks cannot be JPEG: its lossy compression changes the labels along "
            "every edge. Export the masks again as PNG or TIFF, without JPEG in between."
        )
    labels = raster.pixels
    if labels.ndim == 3:
        labels = _agreed(path, labels[..., :3] if labels.shape[2] >= 3 else labels[..., :1])
    if labels.max() > VOID:
        raise DataError(
            f"{path}: the mask holds the label {labels.max()}. Labels go from 0 to 254, and 255 "
            "is void: store the index of the class in each pixel."
        )
    return labels.astype(np.uint8)


def _agreed(path: Path, labels: RawImage) -> RawImage:
    differing = np.argwhere((labels != labels[..., :1]).any(axis=2))
    if len(differing):
        row, column = differing[0]
        raise DataError(
            f"{path}: the mask holds colours: row {row}, column {column} is "
            f"{tuple(labels[row, column].tolist())}. A mask holds the index of the class in each "
            "pixel: store it as a grey or palette PNG."
        )
    return labels[..., 0]


def read_raster(path: Path) -> _Raster:
    """The pixels of a file as stored. Raises DataError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: this file cannot be read: {error.strerror}.") from None
    return _decode(path, data)


def _decode(path: Path, data: bytes) -> _Raster:
    try:
        return _reader_of(path, data)(path, data)
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise _too_large(path, "far too many") from None
    except Exception as error:  # a decoder may raise anything on damaged bytes
        raise _damaged(path) from error


def _damaged(path: Path) -> DataError:
    return DataError(f"{path}: this file is truncated or damaged and cannot be decoded. {_INSTEAD}")


def _reader_of(path: Path, data: bytes) -> Callable[[Path, bytes], _Raster]:
    if data.startswith(_TIFFS):
        return _read_tiff
    if data.startswith((_PNG, _JPEG)):
        return _read_png_or_jpeg
    what = "is empty" if not data else "is not an image: its content is not PNG, JPEG or TIFF"
    raise DataError(f"{path}: this file {what}. {_INSTEAD}")


def _read_png_or_jpeg(path: Path, data: bytes) -> _Raster:
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
        _check_size(path, image.height, image.width)
        orientation = image.getexif().get(_ORIENTATION, 1)
        if data.startswith(_PNG):
            raster = _png_raster(path, data, image)
        else:
            raster = _Raster(_pillow_pixels(path, image), bits=8, lossy=True)
    return _upright(raster, orientation)


def _png_raster(path: Path, data: bytes, image: Image.Image) -> _Raster:
    if b"IEND" not in data[-_TAIL:]:  # Pillow does not check
        raise _damaged(path)
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"{path}: this PNG is animated. Store each frame as its own file.")
    bits = data[24]  # of the IHDR chunk, which always comes first
    if bits == 16:  # Pillow would give 8 bits of a colour image
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        decoded = decode_png(encoded, mode=ImageReadMode.UNCHANGED)  # (S, H, W)
        return _Raster(decoded.permute(1, 2, 0).numpy(), bits)
    pixels = _pillow_pixels(path, image)
    if image.mode == "P":
        colours = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(colours)] = colours
        return _Raster(pixels, 8, palette)
    if image.mode == "L" and bits < 8:  # Pillow has spread them over 0 to 255
        pixels = pixels // np.uint8(255 // (2**bits - 1))
    return _Raster(pixels, bits)


def _pillow_pixels(path: Path, image: Image.Image) -> Labels:
    if image.mode not in _MODES:
        raise DataError(
            f"{path}: the pixel format {image.mode} is not supported. Store it as grey, RGB or "
            "palette, with 8 or 16 bits."
        )
    return np.asarray(image).astype(np.uint8)


def _read_tiff(path: Path, data: bytes) -> _Raster:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        if len(file.pages) != 1:
            raise DataError(
                f"{path}: this TIFF holds {len(file.pages)} pages. Store each page as its own file."
            )
        page = file.pages.first
        _check_size(path, page.imagelength, page.imagewidth)
        _check_tiff_layout(path, page)
        if any(
            offset + count > len(data)
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
        ):
            raise _damaged(path)
        pixels = page.asarray()
        tag = page.tags.get(_ORIENTATION)
    if page.axes == "SYX":
        pixels = pixels.transpose(1, 2, 0)
    raster = _Raster(
        pixels.astype(np.uint8 if pixels.dtype.itemsize == 1 else np.uint16),
        bits=page.bitspersample,
        palette=_tiff_palette(page),
        lossy=page.compression in _LOSSY_TIFF,
        inverted=page.photometric.name == "MINISWHITE",
    )
    return _upright(raster, tag.value if tag else 1)


def _check_tiff_layout(path: Path, page: tifffile.TiffPage) -> None:
    kinds = type(page.photometric)
    samples = page.samplesperpixel
    grey_or_palette = page.photometric in (kinds.MINISBLACK, kinds.MINISWHITE, kinds.PALETTE)
    colour = page.photometric in (kinds.RGB, kinds.YCBCR)
    if (
        page.dtype is None
        or page.dtype.kind not in "bu"
        or page.dtype.itemsize > 2
        or page.axes not in ("YX", "YXS", "SYX")
        or not ((grey_or_palette and samples <= 2) or (colour and samples in (3, 4)))
    ):
        raise DataError(
            f"{path}: this TIFF holds {page.dtype} numbers as {page.photometric.name} with "
            f"{samples} samples per pixel. Store it as grey, RGB or palette, with 8 or 16 bits."
        )


def _tiff_palette(page: tifffile.TiffPage) -> Labels | None:
    if page.photometric.name != "PALETTE" or page.colormap is None:
        return None
    colours = (page.colormap.T >> 8).astype(np.uint8)  # stored with 16 bits
    palette = np.zeros((max(256, len(colours)), 3), np.uint8)
    palette[: len(colours)] = colours
    return palette


def _check_size(path: Path, height: int, width: int) -> None:
    if not 0 < height * width <= MAX_PIXELS:
        raise _too_large(path, f"{height} x {width}")


def _too_large(path: Path, pixels: str) -> DataError:
    return DataError(
        f"{path}: the file says that it holds {pixels} pixels. Images of 1 to {MAX_PIXELS:,} "
        "pixels are accepted: cut it into tiles."
    )


def _upright(raster: _Raster, orientation: int) -> _Raster:
    """The raster rotated and mirrored as EXIF orientation 1 to 8 says."""
    pixels = raster.pixels
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return _Raster(pixels, raster.bits, raster.palette, raster.lossy, raster.inverted)
