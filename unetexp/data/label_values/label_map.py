"""The setting `label_map`: the class of each value or colour that is stored in the masks.

Kept as text in one fixed form, such as `0..127: 0, 128..254: 1, #ff0000: 2, nonzero: 3`, so that
configurations stay comparable and fit on one line in MLflow. K classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from unetexp.data.labels import VOID
from unetexp.errors import ConfigError

UNMAPPED = -1
AS_STORED = np.arange(VOID + 1, dtype=np.int16)
MOST_STORED = 2**32 - 1

_SPAN = re.compile(r"\s*(\d{1,10})\s*(?:\.\.\s*(\d{1,10})\s*)?")
_HEX = re.compile(r"#?([0-9a-fA-F]{6})")
_TRIPLE = re.compile(r"[\[(]?\s*(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})\s*[\])]?")
_PART = re.compile(r"(?:\[[^\]]*\]|\([^)]*\)|\"[^\"]*\"|'[^']*'|[^,])+")
_EXAMPLE = "{0: 0, 1..127: 1, 128..254: 2, 255: void}"
_NONZERO = "nonzero"


@dataclass(frozen=True)
class LabelMap:
    """A label map taken apart. Classes are numbers from 0 up, or VOID."""

    spans: tuple[tuple[int, int, int], ...] = ()  # first and last stored value, class
    colours: tuple[tuple[int, int], ...] = ()  # 0xrrggbb, class
    nonzero: int | None = None  # of all values and colours but 0 that are not named

    @property
    def num_classes(self) -> int:
        """K."""
        return max(target for target in self.targets() if target != VOID) + 1

    def targets(self) -> list[int]:
        """The class of each entry."""
        found = [target for *_, target in self.spans] + [target for _, target in self.colours]
        return found + ([] if self.nonzero is None else [self.nonzero])

    def text(self) -> str:
        """The fixed form."""
        parts = [
            f"{start if start == end else f'{start}..{end}'}: {_target_text(target)}"
            for start, end, target in self.spans
        ]
        parts += [
            f"{hex_colour(colour)}: {_target_text(target)}" for colour, target in self.colours
        ]
        if self.nonzero is not None:
            parts.append(f"{_NONZERO}: {_target_text(self.nonzero)}")
        return ", ".join(parts)

    def of_values(self, values: npt.NDArray[np.int64]) -> npt.NDArray[np.int16]:
        """The class of each stored value: VOID, or UNMAPPED for those that are not named."""
        found = np.full(values.shape, UNMAPPED, np.int16)
        if self.nonzero is not None:
            found[values != 0] = self.nonzero
        for start, end, target in self.spans:
            found[(values >= start) & (values <= end)] = target
        for colour, target in self.colours:
            if colour == grey(colour & 255):
                found[values == colour & 255] = target
        return found

    def of_colours(self, colours: npt.NDArray[np.int64]) -> npt.NDArray[np.int16]:
        """The class of each colour 0xrrggbb; stored values stand for greys."""
        is_grey = colours == grey(colours & 255)
        found = np.where(is_grey, self.of_values(colours & 255), UNMAPPED).astype(np.int16)
        if self.nonzero is not None:
            found[~is_grey] = self.nonzero
        for colour, target in self.colours:
            found[colours == colour] = target
        return found


def label_map_text(given: object) -> str | None:
    """The fixed form of a label map: of a mapping, or of that form itself. Raises ConfigError."""
    if given is None:
        return None
    found = _parsed(given)
    classes = sorted({target for target in found.targets() if target != VOID})
    if len(classes) < 2 or classes != list(range(len(classes))):
        raise ConfigError(
            f"the classes it makes are {', '.join(map(str, classes)) or 'none'}. Make two or more, "
            f"numbered from 0 up without gaps, such as {_EXAMPLE}."
        )
    return found.text()


@cache
def label_map_of(text: str) -> LabelMap:
    """The map that the fixed form `text` stands for."""
    return _parsed(text)


def _parsed(given: object) -> LabelMap:
    spans: list[tuple[int, int, int]] = []
    colours: dict[int, int] = {}
    nonzero: int | None = None
    for key, value in _entries(given):
        target = _target(value)
        colour = _colour(key)
        if str(key).strip() == _NONZERO:
            nonzero = target
        elif colour is None:
            spans.append((*_span(key), target))
        elif colour in colours:
            raise ConfigError(f"the colour {hex_colour(colour)} is mapped twice: remove one.")
        else:
            colours[colour] = target
    spans.sort()
    for (_, end, _), (start, _, _) in pairwise(spans):
        if start <= end:
            raise ConfigError(f"the stored value {start} is mapped twice: remove one of the two.")
    if nonzero is not None and not colours and not any(start == 0 for start, _, _ in spans):
        spans.insert(0, (0, 0, 0))  # `nonzero -> 1` alone
    return LabelMap(tuple(spans), tuple(sorted(colours.items())), nonzero)


def ignore_text(given: object) -> str | None:
    """The fixed form of `ignore`, such as `0, 7..9, #e0e0c0`. Raises ConfigError."""
    if given is None:
        return None
    parts = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if isinstance(given, str):
        parts = _PART.findall(_outer_list(given))
    keys = [_key_text(part) for part in parts]
    if not keys:
        raise ConfigError(
            f"{given!r} names no stored value. Give a value, a range or a colour, or a list of "
            "them, such as 0 or [0, 7..9, '#e0e0c0']."
        )
    return ", ".join(dict.fromkeys(keys))


def _outer_list(text: str) -> str:
    """The text without the brackets of a list of several; a colour in brackets stays whole."""
    text = text.strip()
    if text.startswith("[") and not _TRIPLE.fullmatch(text):
        return text.removeprefix("[").removesuffix("]")
    return text


def ignored(text: str | None) -> LabelMap:
    """What `ignore_text` names, as a map to void."""
    spans: list[tuple[int, int, int]] = []
    colours: list[tuple[int, int]] = []
    for key in (text or "").split(", ") if text else []:
        colour = _colour(key)
        if colour is None:
            spans.append((*_span(key), VOID))
        else:
            colours.append((colour, VOID))
    return LabelMap(tuple(spans), tuple(colours))


def ignored_values(text: str | None) -> npt.NDArray[np.bool_]:
    """Which of the values 0 to 255 `ignore_text` names (256,)."""
    return np.asarray(ignored(text).of_values(np.arange(VOID + 1)) == VOID)


def _key_text(key: object) -> str:
    colour = _colour(key)
    if colour is not None:
        return hex_colour(colour)
    start, end = _span(key)
    return str(start) if start == end else f"{start}..{end}"


def _entries(given: object) -> list[tuple[object, object]]:
    if isinstance(given, Mapping) and given:
        return list(given.items())
    if isinstance(given, str):
        inside = given.strip().removeprefix("{").removesuffix("}")
        parts = [part.replace("->", ":").rpartition(":") for part in _PART.findall(inside)]
        if parts and all(colon for _, colon, _ in parts):
            return [(key.strip().strip("'\""), value) for key, _, value in parts]
    raise ConfigError(
        f"{given!r} does not map stored values to classes, such as {_EXAMPLE} or "
        "{'#000000': 0, '#ff0000': 1} or {0: 0, nonzero: 1}."
    )


def _colour(key: object) -> int | None:
    """The colour 0xrrggbb that a key is, None where it is none."""
    if isinstance(key, list | tuple):
        key = " ".join(map(str, key))
    text = str(key).strip().strip("'\"")
    if match := _HEX.fullmatch(text):
        return int(match[1], 16) if text.startswith("#") else None
    if match := _TRIPLE.fullmatch(text):
        red, green, blue = (int(part) for part in match.groups())
        if max(red, green, blue) > VOID:
            raise ConfigError(f"{key!r} is not a colour: red, green and blue go from 0 to 255.")
        return red << 16 | green << 8 | blue
    return None


def _span(key: object) -> tuple[int, int]:
    match = None if isinstance(key, bool) else _SPAN.fullmatch(str(key))
    start, end = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not start <= end <= MOST_STORED:
        raise ConfigError(
            f"{key!r} is not a stored value. Give a number from 0 up, a range of them such as "
            "1..127, a colour such as '#ff0000' or [255, 0, 0], or nonzero."
        )
    return start, end


def _target(value: object) -> int:
    text = str(value).strip()
    if text in ("void", str(VOID)):
        return VOID
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,3}", text) or int(text) > VOID:
        raise ConfigError(f"{value!r} is not a class. Give a class's number, from 0 up, or void.")
    return int(text)


def _target_text(target: int) -> str:
    return "void" if target == VOID else str(target)


def hex_colour(colour: int) -> str:
    """A colour as in `#ff0000`."""
    return f"#{colour:06x}"


def grey(value: npt.NDArray[np.int64] | int) -> npt.NDArray[np.int64] | int:
    """The colour 0xrrggbb of a grey."""
    return value * 0x010101


def lookup_table(text: str) -> npt.NDArray[np.int16]:
    """The class of each stored value (256,): VOID for void, UNMAPPED for unnamed values.

    255 is void unless the map names it.
    """
    table = label_map_of(text).of_values(np.arange(VOID + 1))
    if table[VOID] == UNMAPPED:
        table[VOID] = VOID
    return table


def value_table(
    present: npt.NDArray[np.bool_], label_map: str | None, ignore: str | None = None
) -> npt.NDArray[np.int16]:
    """The class of each stored value (256,), VOID or UNMAPPED, for a set with `present` values.

    Without a label map the values are the classes and 255 is void; if 0 and 255 are the only
    values, 255 is class 1. What `ignore` names is void; if it names the lowest numbers, those
    above it are the classes from 0 up.
    """
    void = ignored_values(ignore)
    table = AS_STORED.copy() if label_map is None else lookup_table(label_map)
    if label_map is None:
        left = np.flatnonzero(present & ~void).tolist()
        if len(left) == 2 and left[1] == VOID and (left[0] == 0 or void.any()):
            table[left] = (0, 1)
        elif void[0] and left and left[0] != VOID:
            first = int(np.flatnonzero(~void)[0])  # all below it are void
            table[first:VOID] = np.arange(VOID - first)
    table[void] = VOID
    return table
