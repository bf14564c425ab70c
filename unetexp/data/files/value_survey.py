"""The values of a set's train images, for the ranges that become 0 to 1.

C channels, H W image size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from unetexp.data.files.file_sample import FileSample
from unetexp.data.reading.channels import Channels
from unetexp.data.reading.fill_values import fill_values, is_fill
from unetexp.data.reading.input_form import Fills, InputForm, Range
from unetexp.data.reading.value_ranges import robust_range
from unetexp.data.threads import mapped_in_threads
from unetexp.errors import DataError

_VALUES_IN_ALL = 4_000_000  # of each channel, drawn from all images
_LEAST, _MOST = 1_000, 200_000  # of each image

Parts = Sequence[Channels | None]


@dataclass
class _Seen:
    """The values of one file of the samples: of a set with one file each, of all."""

    kinds: dict[str, str] = field(default_factory=dict)  # class of types -> a sample's name
    types: set[str] = field(default_factory=set)
    lowest: list[npt.NDArray[np.float64]] = field(default_factory=list)  # (C,) each
    highest: list[npt.NDArray[np.float64]] = field(default_factory=list)
    drawn: list[npt.NDArray[Any]] = field(default_factory=list)  # (C, values) each


@dataclass(frozen=True)
class Survey:
    """What was found: the form with its ranges, and how they came about."""

    form: InputForm
    notes: tuple[str, ...]
    kinds: tuple[frozenset[str], ...]  # of each file
    fill_shares: Mapping[float, float] = field(default_factory=dict)  # of the numbers of a channel


@dataclass(frozen=True)
class _Range:
    """What becomes 0 and 1 of one channel, and what is left out of that."""

    range: Range
    extremes: Range  # found, without what is left out
    fills: Mapping[float, float] = field(default_factory=dict)  # value -> share


def survey(
    samples: Sequence[FileSample], parts_of: Callable[[FileSample], Parts], form: InputForm
) -> Survey:
    """Read the images of `samples` and find their ranges; `form` has none.

    A sample without parts is left out.

    Raises DataError for types of numbers that have no common scale.
    """
    per_image = int(np.clip(_VALUES_IN_ALL // len(samples), _LEAST, _MOST))
    seen: list[_Seen] = []
    for sample, values in zip(
        samples, mapped_in_threads(lambda s: _values(parts_of(s), per_image), samples), strict=True
    ):
        if not values:
            continue  # not readable
        seen = seen or [_Seen() for _ in values]
        for part, value in zip(seen, values, strict=True):
            if value is not None:
                _add(part, sample, *value)
    channels = tuple(len(part.lowest[0]) if part.lowest else 1 for part in seen)
    found = form.model_copy(update={"file_channels": channels if len(seen) > 1 else ()})
    kinds = tuple(frozenset(part.kinds) for part in seen)
    if all(part.types <= {"uint8"} for part in seen):
        return Survey(found, (), kinds)
    every: list[_Range] = []
    notes = []
    for number, part in enumerate(seen):
        own, note = _ranges(part, channels[number], _stated(form, sum(channels[:number])))
        every += own
        notes.append(f"file {number + 1} of each sample: {note}" if len(seen) > 1 else note)
    shares = {value: share for each in every for value, share in each.fills.items()}
    ranges = [(each.range, tuple(each.fills)) for each in every]
    common = len(seen) == 1 and len(set(ranges)) == 1
    ranges = ranges[:1] if common else ranges
    update: dict[str, Any] = {"ranges": tuple(own for own, _ in ranges)}
    if shares and not form.fills:
        update["fills"] = tuple(fills for _, fills in ranges)
    return Survey(found.model_copy(update=update), tuple(notes), kinds, shares)


def kind_of(part: Channels) -> str:
    """Which numbers a part holds; those of one kind have a common scale."""
    if part.dtype == np.uint8:
        return "8-bit numbers"
    return "floats" if part.dtype.kind == "f" else "whole numbers of more than 8 bits"


def _values(parts: Parts, count: int) -> list[tuple[str, str, Any, Any, npt.NDArray[Any]] | None]:
    """Of each part: its kind and type, lowest and highest of each channel, and values drawn."""
    found: list[tuple[str, str, Any, Any, npt.NDArray[Any]] | None] = []
    for part in parts:
        if part is None:
            found.append(None)
            continue
        flat = part.reshape(len(part), -1)
        finite = np.isfinite(flat)
        low = np.where(finite, flat, np.inf).min(axis=1)
        high = np.where(finite, flat, -np.inf).max(axis=1)
        places = np.random.default_rng(0).integers(flat.shape[1], size=count)
        if flat.shape[1] <= count:
            places = np.arange(flat.shape[1])
        found.append((kind_of(part), str(part.dtype), low, high, flat[:, places]))
    return found


def _add(
    seen: _Seen, sample: FileSample, kind: str, dtype: str, low: Any, high: Any, drawn: Any
) -> None:
    seen.kinds.setdefault(kind, str(sample.image))
    seen.types.add(dtype)
    if len(seen.kinds) > 1:
        (first, a), (second, b) = list(seen.kinds.items())[:2]
        raise DataError(
            f"{a} holds {first} and {b} {second}: they have no common scale. Store all images in "
            "one way, or say which values are 0 and 1.0: --set 'data.value_range=[LOW, HIGH]'."
        )
    seen.lowest.append(np.asarray(low, np.float64))
    seen.highest.append(np.asarray(high, np.float64))
    seen.drawn.append(drawn)


def _stated(form: InputForm, first: int) -> Sequence[Fills]:
    """What means no measurement by the settings, from channel `first` on; one: of all channels."""
    return form.fills if len(form.fills) < 2 else form.fills[first:]


def _ranges(seen: _Seen, channels: int, stated: Sequence[Fills]) -> tuple[list[_Range], str]:
    """The range of each channel of a part: of grey and RGB a common one."""
    if not seen.drawn:
        unit = (0.0, 1.0)
        return [_Range(unit, unit)] * channels, "never there in the train images"
    types = " and ".join(sorted(seen.types))
    if types == "uint8":
        full = (0.0, 255.0)
        return [_Range(full, full)] * channels, "uint8, 0 to 255 are 0 to 1.0"
    if channels in (1, 3) or len({len(low) for low in seen.lowest}) > 1:
        low = float(min(low.min() for low in seen.lowest))
        high = float(max(high.max() for high in seen.highest))
        drawn = np.concatenate([values.reshape(-1) for values in seen.drawn])
        every = tuple(dict.fromkeys(value for fills in stated[:channels] for value in fills))
        found = [_range(drawn, low, high, every)]
        return found * channels, _sentence(types, found)
    lows, highs = np.min(seen.lowest, axis=0), np.max(seen.highest, axis=0)
    drawn = np.concatenate(seen.drawn, axis=1)
    fills = stated if len(stated) > 1 else [*stated, ()][:1] * channels
    found = [_range(drawn[c], float(lows[c]), float(highs[c]), fills[c]) for c in range(channels)]
    return found, _sentence(types, found)


def _range(values: npt.NDArray[Any], low: float, high: float, stated: Fills) -> _Range:
    kept = values[np.isfinite(values)].astype(np.float64)
    if not len(kept):
        return _Range((0.0, 1.0), (low, high))
    fills = stated or fill_values(kept)
    shares = {fill: float(np.count_nonzero(kept == fill) / values.size) for fill in fills}
    kept = kept[~is_fill(kept, fills)] if any(shares.values()) else kept
    if not len(kept):
        return _Range((0.0, 1.0), (low, high), shares)
    if any(shares.values()):
        low, high = float(kept.min()), float(kept.max())
    return _Range(robust_range(kept, low, high, values.dtype.kind), (low, high), shares)


def _sentence(types: str, found: Sequence[_Range]) -> str:
    parts = []
    for number, each in enumerate(found):
        band = f"channel {number}: " if len(found) > 1 else ""
        (low, high), (least, most) = each.range, each.extremes
        parts.append(
            f"{band}{low:g} is 0 and {high:g} is 1.0 (found {least:g} to {most:g})"
            f"{''.join(_left_out(*fill) for fill in each.fills.items())}"
        )
    shown = ", ".join("[{:g}, {:g}]".format(*each.range) for each in found)
    setting = shown if len(found) == 1 else f"[{shown}]"
    return (
        f"images of {types} numbers, scaled by what the train images hold: {'; '.join(parts)}. "
        f"To set it: --set 'data.value_range={setting}'"
    )


def _left_out(fill: float, share: float) -> str:
    return (
        f", without {fill:g} ({share:.1%} of the pixels), which is taken as no measurement and "
        "read as 0"
    )
