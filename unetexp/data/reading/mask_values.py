"""What a stored mask holds: its values or colours, and how often each occurs.

H W mask size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from unetexp.data.collection import Labels
from unetexp.data.labels import VOID
from unetexp.data.reading.stored_mask import StoredMask
from unetexp.errors import DataError

MOST_VALUES = 4096  # of one mask; more are no labels
GREY = 0x010101

_NOISE = 48  # colour that lossy compression makes along black and white edges
_PLAIN_MODES = ("1", "L", "P")
_MAYBE_LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")


@dataclass(frozen=True)
class MaskValues:
    """The values of one mask and how often each occurs; colours are 0xrrggbb."""

    values: tuple[int, ...]
    counts: tuple[int, ...]
    colour: bool = False
    lossy: bool = False
    more: bool = False  # there are more values than these
    wide: bool = False  # stored as whole numbers of more than 8 bits
    palette: tuple[int, ...] = ()  # the colour of each value, where the values are indices


@dataclass(frozen=True)
class MaskHeader:
    """What a mask's header says."""

    plain: bool  # whole numbers of at most 8 bits, unchanged
    palette: bytes = b""  # red, green and blue of each entry; empty: there is none


def header_of(path: Path) -> MaskHeader:
    """The header of a mask; of a file that cannot be read too: who decodes it says why."""
    try:
        with Image.open(path) as image:
            lossy = image.format in _MAYBE_LOSSY or image.info.get("compression") in (
                "jpeg",
                "tiff_jpeg",
                "webp",
            )
            palette = bytes(image.getpalette("RGB") or ()) if image.mode == "P" else b""
            return MaskHeader(image.mode in _PLAIN_MODES and not lossy, palette)
    except Exception:  # a decoder may raise anything on damaged bytes
        return MaskHeader(path.suffix.lower() in (".png", ".bmp", ".gif"))


def colours_of(mask: StoredMask) -> npt.NDArray[np.int64]:
    """The colours as 0xrrggbb (H, W): those of the palette where there is one, else greys too."""
    values = mask.values if mask.palette is None else mask.palette[mask.values]
    wide = values.astype(np.int64)
    if wide.ndim == 2:
        return wide * GREY
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def is_colour(mask: StoredMask) -> bool:
    """Whether the channels of a mask differ anywhere; those of a lossy one by more than noise."""
    if mask.values.ndim == 2:
        return False
    values = mask.values.astype(np.int32)
    spread = values.max(axis=2) - values.min(axis=2)
    return bool((spread > (_NOISE if mask.lossy else 0)).any())


def single(mask: StoredMask) -> npt.NDArray[np.int64]:
    """The values (H, W) of a mask that is no `is_colour`."""
    values = mask.values
    if values.ndim == 3:
        values = np.rint(values.mean(axis=2)) if mask.lossy else values[..., 0]
    return values.astype(np.int64)


def values_in(path: Path, mask: StoredMask, *, as_colours: bool = False) -> MaskValues:
    """The values of one mask, in the file `path`; `as_colours` also those of a palette.

    Raises DataError for numbers that are no labels.
    """
    numbers = mask.values
    if numbers.dtype.kind == "f" and (numbers != np.rint(numbers)).any():
        raise DataError(
            f"{path}: the mask holds fractions, such as {numbers[numbers != np.rint(numbers)][0]}. "
            "Store the number of the class in each pixel."
        )
    if numbers.dtype.kind != "u" and numbers.min() < 0:
        raise DataError(
            f"{path}: the mask holds the value {numbers.min()}. Store numbers from 0 up; 255 is "
            "void."
        )
    colour = as_colours or is_colour(mask)
    values, counts = counted(colours_of(mask) if colour else single(mask))
    more = len(values) > MOST_VALUES
    if more:
        common = np.sort(np.argsort(-counts, kind="stable")[:VOID])
        values, counts = values[common], counts[common]
    palette = () if colour else _palette_at(mask, values)
    wide = numbers.dtype.kind in "iu" and numbers.dtype.itemsize > 1
    found, pixels = tuple(values.tolist()), tuple(counts.tolist())
    return MaskValues(found, pixels, colour, mask.lossy, more, wide, palette)


def _palette_at(mask: StoredMask, values: npt.NDArray[np.int64]) -> tuple[int, ...]:
    if mask.palette is None:
        return ()
    red, green, blue = mask.palette[values].astype(np.int64).T
    return tuple((red << 16 | green << 8 | blue).tolist())


def counted(values: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The distinct values, ascending, and how often each occurs."""
    distinct, inverse, lengths = _runs(values)
    return distinct, np.bincount(inverse, weights=lengths).astype(np.int64)


def recoded(
    values: npt.NDArray[np.int64],
    code: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.uint8]],
) -> Labels:
    """`values` with each of them replaced by its `code`, which is given the distinct ones."""
    distinct, inverse, lengths = _runs(values)
    return np.repeat(code(distinct)[inverse], lengths).reshape(values.shape)


def _runs(
    values: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The distinct values, and of each run of equal pixels the value's index and the length.

    Masks are made of areas: there are far fewer runs than pixels to sort.
    """
    flat = values.reshape(-1)
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    lengths = np.diff(np.append(starts, len(flat)))
    distinct, inverse = np.unique(flat[starts], return_inverse=True)
    return distinct, inverse, lengths
