"""PBM, PGM, PPM and PFM: Pillow would stretch the numbers of those with a small maximum."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from unetexp.data.reading.formats.pillow_formats import pillow_raster
from unetexp.data.reading.formats.raster import Raster, check_size, damaged

_SPACE = rb"(?:\s|#[^\n]*\n)+"
_HEADER = re.compile(rb"P([2356])" + (_SPACE + rb"(\d+)") * 3 + rb"\s")
_COLOUR, _TEXT = (3, 6), (2, 3)


def read_netpbm(path: Path, data: bytes) -> Raster:
    """The numbers of a PGM or PPM as stored; of PBM and PFM as Pillow gives them."""
    header = _HEADER.match(data)
    if header is None:
        with Image.open(io.BytesIO(data), formats=("PPM",)) as image:
            check_size(path, image.height, image.width)
            return pillow_raster(path, image)
    kind, width, height, highest = map(int, header.groups())
    check_size(path, height, width)
    shape = (height, width, 3) if kind in _COLOUR else (height, width)
    depth: type[np.unsignedinteger[Any]] = np.uint8 if highest < 256 else np.uint16
    samples = _numbers(data[header.end() :], kind in _TEXT, depth, int(np.prod(shape)))
    if samples is None:
        raise damaged(path)
    return Raster(samples.reshape(shape), highest if highest < 255 else None)


def _numbers(
    body: bytes, text: bool, depth: type[np.unsignedinteger[Any]], count: int
) -> npt.NDArray[Any] | None:
    """The first `count` numbers; None if there are fewer."""
    if text:
        words = re.sub(rb"#[^\n]*", b"", body).split()
        return np.array(words[:count], np.int64).astype(depth) if len(words) >= count else None
    stored = np.dtype(depth).newbyteorder(">")
    if len(body) < count * stored.itemsize:
        return None
    return np.frombuffer(body, stored, count).astype(depth)
