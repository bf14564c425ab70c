"""PNG, of 1 to 16 bits."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from unetexp.data.reading.formats.pillow_formats import ORIENTATION, palette_of, pillow_raster
from unetexp.data.reading.formats.raster import Raster, check_size, damaged
from unetexp.errors import DataError

PNG = b"\x89PNG\r\n\x1a\n"
_TAIL = 2**16  # last bytes in which to find the end of a PNG: some programs append data
_SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}  # per pixel, of each colour type without a palette
_WITH_ALPHA = (4, 6)  # colour types


def read_png(path: Path, data: bytes) -> Raster:
    """The samples of a PNG. Raises DataError for an animated one; anything for a damaged one."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        check_size(path, image.height, image.width)
        if b"IEND" not in data[-_TAIL:]:  # Pillow does not check
            raise damaged(path)
        if getattr(image, "n_frames", 1) > 1:
            raise DataError(f"{path}: this PNG is animated. Store each frame as its own file.")
        orientation = image.getexif().get(ORIENTATION, 1)
        bits, colour_type = data[24], data[25]  # of the IHDR chunk, which always comes first
        if bits == 16:  # Pillow would give 8 bits of a colour image
            return _deep(data, colour_type, orientation)
        raster = pillow_raster(path, image)
        samples, white = raster.samples, None
        if bits < 8:
            white = 2**bits - 1
            if image.mode == "L":  # Pillow has spread them over 0 to 255
                samples = samples // (255 // white)
        palette = palette_of(image) if image.mode == "P" else None
        return Raster(samples, white, palette, raster.alpha, orientation=orientation)


def _deep(data: bytes, colour_type: int, orientation: int) -> Raster:
    from imagecodecs import png_decode  # takes a while to import, and few images are so deep

    decoded = png_decode(data)
    stored = _SAMPLES[colour_type]  # a colour that stands for transparency is added as alpha
    samples = decoded.reshape(*decoded.shape[:2], -1)[..., :stored]
    alpha = (stored - 1,) if colour_type in _WITH_ALPHA else ()
    return Raster(samples, alpha=alpha, orientation=orientation)
