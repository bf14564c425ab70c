"""What to tell somebody whose masks hold values that may not be the numbers of classes.

Pixel counts are those of each stored value, (256,). Every map that is printed can be pasted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from unetexp.data.labels import VOID

_SHOWN = 8
_STRONG = 0.02  # share of all pixels above which a value is not blur
_COVERED = 0.8  # share of all pixels that the classes make up at least
_BLUR = 8  # this many values between two others are blur, not classes
_MOST_LISTED = 32
_MOST_KEYS = 64  # as many colours as may be classes
_ZERO = ("0", '"#000000"')
_SPREAD = 8  # how far lossy compression moves most values of an area


def shares(pixels: npt.NDArray[np.int64]) -> str:
    """How often each stored value occurs, from pixel counts (256,): the most common ones."""
    total = int(pixels.sum())
    found = np.flatnonzero(pixels)
    common = found[np.argsort(-pixels[found], kind="stable")][:_SHOWN]
    named = ", ".join(f"{value} ({percent(pixels[value] / total)})" for value in sorted(common))
    rest = len(found) - len(common)
    more = f" and {rest} more ({percent(1 - pixels[common].sum() / total)})" if rest else ""
    return f"{named}{more}"


def percent(share: float) -> str:
    """A share in words."""
    return f"{100 * share:.1f} %" if share >= 0.001 else "under 0.1 %"


def remedies(
    pixels: npt.NDArray[np.int64],
    class_names: Sequence[str] | None,
    ignore: str | None = None,
    *,
    smoothed: bool = False,
) -> str:
    """What to do about masks that hold these values, from pixel counts (256,).

    `class_names` are those of classes.txt; `ignore` stays set, and its values are not counted;
    `smoothed` if the values rise in steps from 0 to the highest.
    Every map in it can be pasted as it is.
    """
    blurred = _blurred(pixels, smoothed=smoothed)
    found = [setting(blurred, ignore)] if blurred else []
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
            f"If each value is a class of its own, number them: {setting(dense, ignore)}"
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


def _blurred(pixels: npt.NDArray[np.int64], *, smoothed: bool) -> dict[str, int | str] | None:
    """The map from each value to the nearest level, if the others look like blur."""
    values = np.flatnonzero(pixels)
    strong = np.flatnonzero(pixels >= _STRONG * pixels.sum())
    top = np.sort(values[np.argsort(-pixels[values], kind="stable")][:2])
    between = ((values > top[0]) & (values < top[-1])).sum()
    outside = ((values < top[0]) | ((values > top[-1]) & (values < VOID))).sum()
    covered = pixels[strong].sum() / pixels.sum()
    if smoothed:  # of thin objects perhaps no pixel is 255
        levels = [0, VOID if values[-1] > VOID // 2 else int(values[-1])]
    elif len(values) > _MOST_LISTED and 2 < len(strong) <= _BLUR and covered >= _COVERED:
        levels = strong.tolist()
    elif (between and top.tolist() == [0, VOID]) or (
        between >= _BLUR and not outside and len(strong) <= 2
    ):
        levels = top.tolist()
    else:
        return None
    return _halfway(levels)


def split_between_peaks(pixels: npt.NDArray[np.int64]) -> str:
    """What to set for lossy masks whose values, of these counts (256,), lie around several.

    Empty where they do not.
    """
    left = pixels.copy()
    levels: list[int] = []
    while len(levels) < _BLUR:
        near = np.convolve(left, np.ones(2 * _SPREAD + 1, np.int64), "same")
        middle = int(near.argmax())
        if near[middle] < _STRONG * pixels.sum():
            break
        around = slice(max(middle - _SPREAD, 0), middle + _SPREAD + 1)
        level = around.start + int(left[around].argmax())
        levels.append(level)
        left[max(level - 2 * _SPREAD, 0) : level + 2 * _SPREAD + 1] = 0
    if len(levels) < 2:
        return ""
    levels.sort()
    return (
        f"Most lie around {', '.join(map(str, levels))}. If these are {len(levels)} classes, split "
        f"them halfway: {setting(_halfway(levels))}."
    )


def _halfway(levels: Sequence[int]) -> dict[str, int | str]:
    """The map of each value to the nearest of `levels`, ascending."""
    starts = [0, *((a + b) // 2 + 1 for a, b in pairwise(levels))]
    ends = [*(start - 1 for start in starts[1:]), VOID]
    return {f"{a}..{b}": i for i, (a, b) in enumerate(zip(starts, ends, strict=True))}


def setting(entries: Mapping[str, int | str], ignore: str | None = None) -> str:
    """The `--set` of a label map, and of `ignore` where that is to stay."""
    kept = f" {ignore_setting(ignore)}" if ignore else ""
    return f"--set 'data.label_map={{{', '.join(f'{k}: {v}' for k, v in entries.items())}}}'{kept}"


def ignore_setting(ignore: str) -> str:
    """The `--set` of the fixed form of `ignore`."""
    keys = [f'"{key}"' if key.startswith("#") else key for key in ignore.split(", ")]
    values = keys[0] if len(keys) == 1 else f"[{', '.join(keys)}]"
    return f"--set 'data.ignore={values}'"


def setting_without(
    table: npt.NDArray[np.int16],
    classes: Sequence[int],
    num_classes: int,
    stored: Sequence[tuple[str, int]],
) -> str:
    """The `--set` that makes `classes` void and renumbers the others.

    `table` (256,) holds the class of each code so far, `stored` the stored values, as a label map
    names them, with their codes.
    """
    kept = [k for k in range(num_classes) if k not in classes]
    targets: dict[int, int | str] = {k: kept.index(k) for k in kept}
    targets |= dict.fromkeys([*classes, VOID], "void")
    entries = {
        key: targets[int(table[code])] for key, code in stored if int(table[code]) in targets
    }
    return setting(_shortened(entries))


def _shortened(entries: Mapping[str, int | str]) -> dict[str, int | str]:
    """With ranges for numbers in a row; many others of one class, but 0, are `nonzero`."""
    spans: list[tuple[str, str, int | str]] = []
    for key, target in entries.items():
        first, last, before = spans[-1] if spans else ("", "", "")
        if before == target and key.isdecimal() and last.isdecimal() and int(key) == int(last) + 1:
            spans[-1] = (first, key, target)
        else:
            spans.append((key, key, target))
    short = {a if a == b else f"{a}..{b}": target for a, b, target in spans}
    if len(short) <= _MOST_KEYS:
        return short
    most, _ = Counter(target for key, target in short.items() if key not in _ZERO).most_common(1)[0]
    return {k: t for k, t in short.items() if k in _ZERO or t != most} | {"nonzero": most}


def _naming(entries: Mapping[str, int | str], class_names: Sequence[str] | None) -> str:
    """Which class gets which name of classes.txt, or that it must name as many."""
    keys = {value: key for key, value in entries.items() if value != "void"}
    if class_names is None:
        return ""
    if len(keys) != len(class_names):
        return f", and name {len(keys)} classes in classes.txt, which names {len(class_names)}"
    shown = ", ".join(f"{keys[i]} {class_names[i]}" for i in range(min(len(keys), _SHOWN)))
    return f" ({shown}{', ...' if len(keys) > _SHOWN else ''})"
