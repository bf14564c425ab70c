"""The input of a served model: images in one of several forms, as arrays of one form.

An image is an array (H, W, C) or, if grey, (H, W); or a PNG or JPEG file as bytes or in base64.
Over HTTP, arrays are nested lists of whole numbers.

A model that was trained on numbers with a measured range, such as floats, also takes float arrays:
those numbers as they are in the files. Its uint16 is that range in 0 to 65535.

N images, C channels, H W image size.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unetexp.data.collection import RawImage
from unetexp.data.reading.formats.raster import damaged
from unetexp.data.reading.image_decoding import decode_image
from unetexp.data.reading.input_form import AS_STORED
from unetexp.data.reading.value_ranges import scaled
from unetexp.errors import DataError
from unetexp.models.image_spec import ImageSpec

Labels = NDArray[np.uint8]
Answer = Labels | list[Labels]

_ENCODED = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_FORMS = (
    "Allowed: one image (H, W, C) or (H, W), a batch (N, H, W, C), or a list of images of any "
    "sizes; an image is a uint8 or uint16 array, or a PNG or JPEG file as bytes or in base64."
)


class TooManyPixelsError(DataError):
    """Images of more pixels than are accepted, refused before they are decoded."""


@dataclass(frozen=True)
class Payload:
    """The images that were sent and the form they came in."""

    images: tuple[RawImage, ...]  # (C, H, W) uint8 or uint16 each
    form: Literal["one", "batch", "list"]

    def answer(self, labels: Sequence[Labels]) -> Answer:
        """The label maps (H, W) of the images in the form in which the images came."""
        if self.form == "one":
            return labels[0]
        return np.stack(labels) if self.form == "batch" else list(labels)


def read_payload(given: Any, spec: ImageSpec, max_pixels: int | None = None) -> Payload:
    """The images in a request to a model of that `spec`, each with its own depth and channels.

    A data frame of one column and a mapping of one key (`{"image": ...}`) are unwrapped to what
    they hold. Raises DataError saying what was sent, what is allowed and what to do:
    TooManyPixelsError, before anything is decoded, for more than `max_pixels` together.
    """
    if hasattr(given, "iloc"):  # a pandas DataFrame or Series
        given = _only_column(given)
    given = _unwrapped(given)
    if isinstance(given, list | tuple) and not _is_array(given):
        parts, form = [_unwrapped(part) for part in given], "list"
    elif isinstance(given, np.ndarray) and given.dtype == object:
        parts, form = list(given), "list"
    elif isinstance(given, str | bytes):
        parts, form = [given], "one"
    else:
        array = _array(given, "the images", spec)
        parts, form = (list(array), "batch") if array.ndim == 4 else ([array], "one")
    if not parts:
        raise DataError(f"no image was sent. {_FORMS}")
    names = ["the image"] if form == "one" else [f"image {n}" for n in range(len(parts))]
    budget = _Budget(max_pixels)
    images = tuple(
        _image(part, name, spec, budget) for part, name in zip(parts, names, strict=True)
    )
    return Payload(images, form)  # type: ignore[arg-type]


class _Budget:
    """The pixels that the images of a request may have together."""

    def __init__(self, most: int | None) -> None:
        self._most, self._taken = most, 0

    def take(self, name: str, height: int, width: int) -> None:
        """Raise TooManyPixelsError if that is too much."""
        self._taken += height * width
        if self._most is not None and self._taken > self._most:
            raise TooManyPixelsError(
                f"{name} has {height} x {width} pixels, and the images of a request may have "
                f"{self._most:,} together: scale it down, or cut it into tiles."
            )


def _only_column(frame: Any) -> list[Any]:
    if frame.ndim == 1:
        return list(frame)
    if frame.shape[1] != 1:
        raise DataError(
            f"a table with the columns {', '.join(map(str, frame.columns))} was sent. Send one "
            "column with one image per row."
        )
    return list(frame.iloc[:, 0])


def _unwrapped(given: Any) -> Any:
    if hasattr(given, "detach"):  # a tensor
        return given.detach().cpu().numpy()
    if not isinstance(given, Mapping):
        return given
    if len(given) != 1:
        raise DataError(
            f"a mapping with the keys {', '.join(map(str, given))} was sent. Send one key, "
            f'"image". {_FORMS}'
        )
    return next(iter(given.values()))


def _is_array(given: Sequence[Any]) -> bool:
    """Whether nested lists are one array rather than a list of images."""
    if not given or not all(isinstance(part, list | tuple | int | float) for part in given):
        return False
    try:
        return np.asarray(given).ndim <= 4
    except ValueError:  # of different sizes
        return False


def _image(given: Any, name: str, spec: ImageSpec, budget: _Budget) -> RawImage:
    if isinstance(given, str | bytes):
        return _decoded(given, name, spec, budget)
    array = _array(given, name, spec)
    if array.ndim not in (2, 3) or min(array.shape) < 1:
        raise DataError(f"{name} has the shape {array.shape}. {_FORMS}")
    channels = 1 if array.ndim == 2 else array.shape[2]
    if channels not in _allowed_channels(spec):
        hint = "Drop the alpha channel: image[..., :3]" if channels == 4 else "Channels come last"
        raise DataError(
            f"{name} has {channels} channels, as (H, W, C) = {array.shape}. Allowed are "
            f"{_channels_in_words(spec)}. {hint}; a batch of grey images has the shape "
            "(N, H, W, 1)."
        )
    budget.take(name, *array.shape[:2])
    if array.dtype.kind == "f":
        assert spec.input is not None
        planes = array.reshape(*array.shape[:2], channels).transpose(2, 0, 1)
        return scaled([planes], spec.input.of_channels())
    pixels = array[np.newaxis] if array.ndim == 2 else array.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels)


def _allowed_channels(spec: ImageSpec) -> tuple[int, ...]:
    return (1, 3) if spec.in_channels in (1, 3) else (spec.in_channels,)


def _channels_in_words(spec: ImageSpec) -> str:
    if spec.in_channels in (1, 3):
        return "1 (grey) and 3 (RGB)"
    return f"{spec.in_channels}, those of the images that the model was trained on"


def _decoded(given: str | bytes, name: str, spec: ImageSpec, budget: _Budget) -> RawImage:
    if isinstance(given, str):
        encoded = given.partition("base64,")[2] if given.startswith("data:") else given
        try:
            given = base64.b64decode("".join(encoded.split()), validate=True)
        except (binascii.Error, ValueError):
            raise DataError(f"{name} is text, but not base64. {_FORMS}") from None
    if not given.startswith(_ENCODED):
        raise DataError(f"{name} is a file, but neither PNG nor JPEG. {_FORMS}")
    budget.take(name, *_stored_size(given, name))
    return decode_image(name, given, spec.input or AS_STORED)


def _stored_size(file: bytes, name: str) -> tuple[int, int]:
    """Height and width by the file's header."""
    try:
        with Image.open(io.BytesIO(file), formats=("PNG", "JPEG")) as image:
            return image.height, image.width
    except Image.DecompressionBombError:
        raise TooManyPixelsError(
            f"{name} has more pixels than are ever accepted: scale it down, or cut it into tiles."
        ) from None
    except Exception:  # a decoder may raise anything on damaged bytes
        raise damaged(Path(name)) from None


def _array(given: Any, name: str, spec: ImageSpec) -> NDArray[Any]:
    """An array of uint8 or uint16; whole numbers in lists get the depth of the training images."""
    if isinstance(given, np.ndarray):
        measured = spec.input is not None and spec.input.ranges is not None
        if given.dtype not in (np.uint8, np.uint16) and not (measured and given.dtype.kind == "f"):
            floats = ", or floats as they are stored in the images' files" if measured else ""
            raise DataError(
                f"{name}: an array of {given.dtype} was sent. Send uint8 (0 to 255) or uint16"
                f"{floats}, neither scaled to 0..1 nor normalised: the model does that."
            )
        return given
    try:
        array = np.asarray(given)
    except ValueError:
        raise DataError(f"{name}: the rows differ in length. {_FORMS}") from None
    if array.dtype.kind not in "iu":
        fractions = array.dtype.kind == "f"
        what = "fractional numbers were" if fractions else f"a {type(given).__name__} was"
        raise DataError(f"{name}: {what} sent. {_FORMS}")
    depth = "uint8" if spec.image_max <= 255 else "uint16"
    largest = np.iinfo(depth).max
    if array.size and not 0 <= array.min() <= array.max() <= largest:
        raise DataError(
            f"{name}: numbers from {array.min()} to {array.max()} were sent. The model was trained "
            f"on images of {depth}: 0 to {largest}."
        )
    return array.astype(depth)
