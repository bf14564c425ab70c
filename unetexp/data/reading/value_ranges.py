"""Which stored values are 0 and 1: measured robustly, and applied.

C channels, H W image size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from unetexp.data.collection import RawImage
from unetexp.data.reading.channels import Channels
from unetexp.data.reading.fill_values import is_fill
from unetexp.data.reading.input_form import FULL_16, Fills, InputForm, Range
from unetexp.errors import DataError

ROBUST_SHARE = 0.999  # of the values lie below the robust maximum

Values = npt.NDArray[np.float64]
T = TypeVar("T")


def robust_maximum(counts: npt.NDArray[np.int64]) -> int:
    """The value that counts as 1.0, of how often each value occurs: the index is the value.

    The largest value, unless it is more than twice the one that 99.9 % do not exceed: then that
    one, so that no hot pixel sets the scale, and no set without one changes.
    """
    present = np.flatnonzero(counts)
    if not len(present):
        return 1
    largest = int(present[-1])
    common = int(np.searchsorted(np.cumsum(counts), ROBUST_SHARE * counts.sum()))
    return max(1, largest if largest <= 2 * common else common)


def robust_range(values: Values, low: float, high: float, kind: str) -> Range:
    """What becomes 0 and 1, of a sample of the finite values and their extremes.

    `kind` is numpy's of their type. Floats within 0..1 stay as they are. Else the extremes, unless
    they lie further out than the middle 99.8 % are wide: then the quantiles. What begins near 0
    begins at 0.
    """
    if kind == "f" and low >= 0 and high <= 1:
        return 0.0, 1.0
    lower, upper = (float(q) for q in np.quantile(values, (1 - ROBUST_SHARE, ROBUST_SHARE)))
    width = upper - lower
    high = high if high <= upper + width else upper
    low = low if low >= lower - width else lower
    if 0 <= low <= high / 2:
        low = 0.0
    return (low, high) if high > low else (low, low + 1.0)


def scaled(parts: Sequence[Channels | None], form: InputForm) -> RawImage:
    """The parts (C, H, W) of an image in one, scaled by the ranges of `form` where it has some.

    A missing part is 0 in the channels that the form says it has. What is not finite is 0. Raises
    DataError where there are neither as many ranges as channels nor one.
    """
    if form.ranges is not None or form.fills:
        _check_count(parts, form)
    size = next(part.shape[1:] for part in parts if part is not None)
    images, first = [], 0
    for number, part in enumerate(parts):
        channels = len(part) if part is not None else form.file_channels[number]
        if part is None:
            kind = np.uint8 if form.ranges is None else np.uint16
            images.append(np.zeros((channels, *size), kind))
        elif form.ranges is None:
            images.append(_without(part, _fills(form, first, channels)))
        else:
            ranges = _of_channels(form.ranges, first, channels)
            images.append(_quantised(part, ranges, _fills(form, first, channels)))
        first += channels
    image = images[0] if len(images) == 1 else np.concatenate(images)
    if len(parts) > 1 and form.bands is not None:
        image = image[list(form.bands)]
    if form.ceiling is not None and image.dtype == np.uint16:
        image = np.minimum(image, np.uint16(form.ceiling))
    return np.ascontiguousarray(image)


def clipped_pixels(parts: Sequence[Channels | None], form: InputForm) -> tuple[int, int]:
    """How many values lie outside the ranges of `form`, and how many there are."""
    outside = total = first = 0
    for number, part in enumerate(parts):
        channels = len(part) if part is not None else form.file_channels[number]
        if part is not None and form.ranges is not None:
            ranges = _of_channels(form.ranges, first, channels)
            fills = _fills(form, first, channels)
            for plane, (low, high), none in zip(part, ranges, fills, strict=True):
                beyond = (plane < low) | (plane > high)
                outside += int(np.count_nonzero(beyond & ~is_fill(plane, none) if none else beyond))
            total += part.size
        first += channels
    return outside, total


def _check_count(parts: Sequence[Channels | None], form: InputForm) -> None:
    there = zip(parts, form.file_channels or (0,) * len(parts), strict=True)
    channels = sum(known if part is None else len(part) for part, known in there)
    if form.ranges is not None and len(form.ranges) not in (1, channels):
        raise DataError(
            f"data.value_range has {len(form.ranges)} ranges and an image {channels} channels: "
            "give one for all channels, [LOW, HIGH], or one for each."
        )
    if len(form.fills) not in (0, 1, channels):
        raise DataError(
            f"data.no_data has {len(form.fills)} lists and an image {channels} channels: give one "
            "for all channels, such as [-9999], or one for each."
        )


def _of_channels(ranges: Sequence[T], first: int, count: int) -> Sequence[T]:
    return [ranges[0]] * count if len(ranges) == 1 else ranges[first : first + count]


def _fills(form: InputForm, first: int, count: int) -> Sequence[Fills]:
    return _of_channels(form.fills or ((),), first, count)


def _without(part: Channels, fills: Sequence[Fills]) -> Channels:
    """The part with 0 for what means no measurement."""
    if not any(fills):
        return part
    image = part.copy()
    for plane, none in zip(image, fills, strict=True):
        plane[is_fill(plane, none)] = 0
    return image


def _quantised(
    part: Channels, ranges: Sequence[Range], fills: Sequence[Fills]
) -> npt.NDArray[np.uint16]:
    """Each channel of `part` as uint16: its range becomes 0 to 65535, the rest is clipped.

    Where the channel holds one of its `fills` it becomes 0.
    """
    image = np.empty(part.shape, np.uint16)
    for plane, target, (low, high), none in zip(part, image, ranges, fills, strict=True):
        values: npt.NDArray[Any] = plane.astype(np.float64)
        values -= low
        values *= FULL_16 / (high - low)
        np.nan_to_num(values, copy=False, nan=0.0, posinf=FULL_16, neginf=0.0)
        target[...] = np.rint(values.clip(0, FULL_16))
        if none:
            target[is_fill(plane, none)] = 0
    return image
