"""The setting `label_map`: the class of each value that is stored in the masks.

Kept as text in one fixed form, such as `0..127: 0, 128..254: 1, 255: void`, so that configurations
stay comparable and fit on one line in MLflow. K classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from unetexp.data.labels import VOID
from unetexp.errors import ConfigError

UNMAPPED = -1
AS_STORED = np.arange(VOID + 1, dtype=np.int16)

_SPAN = re.compile(r"\s*(\d{1,3})\s*(?:\.\.\s*(\d{1,3})\s*)?")
_SHOWN = 8
_STRONG = 0.02  # share of all pixels above which a value is not blur
_COVERED = 0.8  # share of all pixels that the classes make up at least
_BLUR = 8  # this many values between two others are blur, not classes
_MOST_LISTED = 32
_EXAMPLE = "{0: 0, 1..127: 1, 128..254: 2, 255: void}"


def label_map_text(given: object) -> str | None:
    """The fixed form of a label map: of a mapping, or of that form itself. Raises ConfigError."""
    if given is None:
        return None
    spans = sorted((*_span(key), _target(value)) for key, value in _entries(given))
    for (_, end, _), (start, _, _) in pairwise(spans):
        if start <= end:
            raise ConfigError(f"the stored value {start} is mapped twice: remove one of the two.")
    classes = sorted({target for _, _, target in spans} - {VOID})
    if len(classes) < 2 or classes != list(range(len(classes))):
        raise ConfigError(
            f"the classes it makes are {', '.join(map(str, classes)) or 'none'}. Make two or more, "
            f"numbered from 0 up without gaps, such as {_EXAMPLE}."
        )
    return ", ".join(
        f"{start if start == end else f'{start}..{end}'}: {'void' if target == VOID else target}"
        for start, end, target in spans
    )


def _entries(given: object) -> list[tuple[object, object]]:
    if isinstance(given, Mapping) and given:
        return list(given.items())
    if isinstance(given, str):
        parts = [part.partition(":") for part in given.strip("{} ").split(",")]
        if all(colon for _, colon, _ in parts):
            return [(key, value) for key, _, value in parts]
    raise ConfigError(f"{given!r} does not map stored values to classes, such as {_EXAMPLE}.")


def _span(key: object) -> tuple[int, int]:
    match = None if isinstance(key, bool) else _SPAN.fullmatch(str(key))
    start, end = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not start <= end <= VOID:
        raise ConfigError(
            f"{key!r} is not a stored value. Give a number from 0 to 255, or a range of them such "
            "as 1..127."
        )
    return start, end


def _target(value: object) -> int:
    text = str(value).strip()
    if text in ("void", str(VOID)):
        return VOID
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,3}", text) or int(text) > VOID:
        raise ConfigError(f"{value!r} is not a class. Give a class's number, from 0 up, or void.")
    return int(text)


def lookup_table(text: str) -> npt.NDArray[np.int16]:
    """The class of each stored value (256,): VOID for void, UNMAPPED for unnamed values.

    255 is void unless the map names it.
    """
    table = np.full(VOID + 1, UNMAPPED, np.int16)
    table[VOID] = VOID
    for key, value in _entries(text):
        start, end = _span(key)
        table[start : end + 1] = _target(value)
    return table


def value_table(present: npt.NDArray[np.bool_], label_map: str | None) -> npt.NDArray[np.int16]:
    """The class of each stored value (256,), VOID or UNMAPPED, for a set with `present` values.

    Without a label map the values are the classes and 255 is void; if 0 and 255 are the only
    values, 255 is class 1.
    """
    if label_map is not None:
        return lookup_table(label_map)
    table = AS_STORED.copy()
    if np.flatnonzero(present).tolist() == [0, VOID]:
        table[VOID] = 1
    return table


def shares(pixels: npt.NDArray[np.int64]) -> str:
    """How often each stored value occurs, from pixel counts (256,): the most common ones."""
    total = int(pixels.sum())
    found = np.flatnonzero(pixels)
    common = found[np.argsort(-pixels[found], kind="stable")][:_SHOWN]
    named = ", ".join(f"{value} ({_percent(pixels[value] / total)})" for value in sorted(common))
    rest = len(found) - len(common)
    more = f" and {rest} more ({_percent(1 - pixels[common].sum() / total)})" if rest else ""
    return f"{named}{more}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "under 0.1 %"


def remedies(pixels: npt.NDArray[np.int64], class_names: Sequence[str] | None) -> str:
    """What to do about masks that hold these values, from pixel counts (256,).

    `class_names` are those of classes.txt. Every map in it can be pasted as it is.
    """
    blurred = _blurred(pixels)
    found = [_setting(blurred)] if blurred else []
    sentences = []
    if blurred:
        levels = len(set(blurred.values()))
        sentences.append(
            f"If the masks were smoothed, resized or compressed and mean {levels} classes, split "
            f"them halfway: {found[0]}{_naming(blurred, class_names)}."
        )
    values = [int(value) for value in np.flatnonzero(pixels)]
    if len(values) > 1 and not (blurred and len(values) > _MOST_LISTED):
        dense = _dense(values)
        also = f" (255: {len(values) - 1} instead of void if it is a class)"
        sentences.append(
            f"If each value is a class of its own, number them: {_setting(dense)}"
            f"{also if dense.get(str(VOID)) == 'void' else ''}{_naming(dense, class_names)}."
        )
    return " ".join(sentences)


def _dense(values: Sequence[int]) -> dict[str, int | str]:
    """The values numbered from 0 up; 255 is void if there are at least two others."""
    classes = [value for value in values if value != VOID]
    if len(classes) < 2:
        classes = list(values)
    numbered: dict[str, int | str] = {str(value): i for i, value in enumerate(classes)}
    return numbered | ({str(VOID): "void"} if VOID in values and VOID not in classes else {})


def _blurred(pixels: npt.NDArray[np.int64]) -> dict[str, int | str] | None:
    """The map from each value to the nearest level, if the others look like blur."""
    values = np.flatnonzero(pixels)
    strong = np.flatnonzero(pixels >= _STRONG * pixels.sum())
    top = np.sort(values[np.argsort(-pixels[values], kind="stable")][:2])
    between = ((values > top[0]) & (values < top[-1])).sum()
    outside = ((values < top[0]) | ((values > top[-1]) & (values < VOID))).sum()
    covered = pixels[strong].sum() / pixels.sum()
    if len(values) > _MOST_LISTED and 2 < len(strong) <= _BLUR and covered >= _COVERED:
        levels = strong.tolist()
    elif (between and top.tolist() == [0, VOID]) or (
        between >= _BLUR and not outside and len(strong) <= 2
    ):
        levels = top.tolist()
    else:
        return None
    starts = [0, *((a + b) // 2 + 1 for a, b in pairwise(levels))]
    ends = [*(start - 1 for start in starts[1:]), VOID]
    return {f"{a}..{b}": i for i, (a, b) in enumerate(zip(starts, ends, strict=True))}


def _setting(entries: Mapping[str, int | str]) -> str:
    return f"--set 'data.label_map={{{', '.join(f'{k}: {v}' for k, v in entries.items())}}}'"


def setting_without(table: npt.NDArray[np.int16], classes: Sequence[int], num_classes: int) -> str:
    """The `--set` that makes `classes` void and renumbers the others.

    `table` (256,) holds the class of each stored value so far.
    """
    kept = [k for k in range(num_classes) if k not in classes]
    targets: dict[int, int | str] = {k: kept.index(k) for k in kept}
    targets |= dict.fromkeys([*classes, VOID], "void")
    entries: list[tuple[int, int, int | str]] = []
    for value, target in enumerate(targets.get(int(k)) for k in table):
        if target is None:
            continue
        if entries and entries[-1][1:] == (value - 1, target):
            entries[-1] = (entries[-1][0], value, target)
        else:
            entries.append((value, value, target))
    return _setting({str(a) if a == b else f"{a}..{b}": target for a, b, target in entries})


def _naming(entries: Mapping[str, int | str], class_names: Sequence[str] | None) -> str:
    """Which class gets which name of classes.txt, or that it must name as many."""
    keys = {value: key for key, value in entries.items() if value != "void"}
    if class_names is None:
        return ""
    if len(keys) != len(class_names):
        return f", and name {len(keys)} classes in classes.txt, which names {len(class_names)}"
    shown = ", ".join(f"{keys[i]} {class_names[i]}" for i in range(min(len(keys), _SHOWN)))
    return f" ({shown}{', ...' if len(keys) > _SHOWN else ''})"
