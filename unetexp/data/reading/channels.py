"""From the samples of a file to the channels of an image.

C channels, H W image size, S samples per pixel as stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unetexp.data.reading.formats.raster import Raster
from unetexp.errors import DataError

Channels = npt.NDArray[Any]  # (C, H, W), uint8, uint16 or numbers that need a range

_SOFT = 0.05  # share of the pixels that cut-outs with smooth edges have between clear and opaque


def channels_of(raster: Raster, *, with_alpha: bool = False) -> tuple[Channels, tuple[str, ...]]:
    """The channels (C, H, W) of a raster in its stored orientation, and what was assumed.

    Samples that the file marks as alpha are left out, unless `with_alpha`. Grey of fewer than
    8 bits is spread over 0 to 255; a nodata value becomes NaN in floats and 0 in integers.
    """
    notes = raster.notes
    if raster.palette is not None:
        planes: Channels = raster.palette[raster.samples]
    else:
        planes = _measured(raster, raster.planes)
        if raster.nodata is not None and (raster.planes == raster.nodata).any():
            notes = (*notes, _nodata_note(raster.nodata))
        if raster.alpha and not with_alpha:
            notes = (*notes, _alpha_note(raster))
            kept = [s for s in range(planes.shape[2]) if s not in raster.alpha]
            planes = planes[..., kept]
    return planes.transpose(2, 0, 1), notes


def selected(path: Path, image: Channels, bands: Sequence[int] | None) -> Channels:
    """The `bands` of an image, counted from 0, in that order; DataError for one it lacks."""
    if bands is None:
        return image
    beyond = [band for band in bands if band >= len(image)]
    if beyond:
        raise DataError(
            f"{path}: data.bands names band {beyond[0]}, and the image has {len(image)}, counted "
            f"from 0: give some of {list(range(len(image)))}."
        )
    return image[list(bands)]


def alpha_may_be_band(raster: Raster) -> bool:
    """Whether a sample that is marked as alpha is more than opaque here and clear there."""
    if not raster.alpha or raster.palette is not None:
        return False
    alpha = raster.planes[..., raster.alpha]
    whole = alpha.dtype.kind in "iu"
    opaque = raster.white or (np.iinfo(alpha.dtype).max if whole else alpha.max())
    varies = (alpha != alpha.flat[0]).any()
    return bool(varies and ((alpha > 0) & (alpha < opaque)).mean() > _SOFT)


def _measured(raster: Raster, planes: Channels) -> Channels:
    """The numbers as brightness: white is high, and what was not measured is NaN or 0."""
    if planes.dtype == np.float16:
        planes = planes.astype(np.float32)
    if raster.nodata is not None and planes.dtype.kind == "f":
        planes = np.where(planes == raster.nodata, np.nan, planes).astype(planes.dtype)
    elif raster.nodata is not None:
        planes = np.where(planes == raster.nodata, 0, planes).astype(planes.dtype)
    if raster.inverted and planes.dtype.kind == "u":
        planes = planes.dtype.type(raster.white or np.iinfo(planes.dtype).max) - planes
    if raster.white is not None and raster.white < 255:
        spread = (planes.astype(np.uint32) * 255 + raster.white // 2) // raster.white
        planes = spread.astype(np.uint8)
    return planes


def _nodata_note(value: float) -> str:
    return f"{value:g}, by GDAL's tag in the file no measurement, is read as 0"


def _alpha_note(raster: Raster) -> str:
    alpha = raster.planes[..., raster.alpha]
    everything = list(range(raster.planes.shape[2]))
    form = "the same everywhere" if (alpha == alpha.flat[0]).all() else "of varying values"
    return (
        f"a sample marked as alpha (transparency), {form}, is left out; where it is a band, such "
        f"as near infrared: --set 'data.bands={everything}'"
    )
