"""Classes for masks that hold colours, 16-bit numbers or the traces of lossy compression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from unetexp.data.label_values.coding import (
    Coding,
    Rules,
    all_values,
    coded,
    mapped,
    rules_name_colours,
)
from unetexp.data.label_values.colour_coding import MOST_COLOURS, colours_coded
from unetexp.data.label_values.label_map import (
    ignored,
    ignored_values,
    label_map_of,
)
from unetexp.data.label_values.palettes import palette_clash
from unetexp.data.label_values.remedies import percent, remedies, setting, split_between_peaks
from unetexp.data.labels import VOID
from unetexp.data.reading.mask_values import MaskValues
from unetexp.errors import DataError, listed

_NEAR = 32  # of 0 or 255: how far lossy compression moves most values of a binary mask
_NEARLY_ALL = 0.97  # share of the pixels that lie near 0 or 255
_OBJECTS: dict[str, int | str] = {"0": 0, "nonzero": 1}
_FEW = 3  # values of a mask that is not smoothed
_HALF = 128
_WIDE_VOID = 65535  # the largest of 16 bits, as 255 of 8
_THRESHOLD = "0..127: 0, 128..255: 1"


def coding_of(masks: Sequence[MaskValues], rules: Rules) -> Coding | None:
    """How the masks of a set are coded; None where they hold numbers of at most 8 bits.

    Raises DataError, with both readings, where more than one is possible.
    """
    if any(mask.colour for mask in masks) or rules_name_colours(rules):
        return colours_coded(masks, rules)
    if clash := not rules.indexed and palette_clash(masks, rules.mask_files):
        return _of_palettes(masks, rules, clash)
    if max(mask.values[-1] for mask in masks) > VOID:
        return _of_wide_numbers(masks, rules)
    if any(mask.lossy for mask in masks):
        return _of_lossy(masks, rules)
    return None


def _of_palettes(masks: Sequence[MaskValues], rules: Rules, clash: str) -> Coding:
    """By colour, since each file numbers the colours in its own order."""
    why = f"The palettes of the masks differ ({clash}): they are read by colour, not by index."
    try:
        coding = colours_coded(masks, rules)
    except DataError as error:
        raise DataError(f"{error}\n{why}") from None
    return replace(coding, notes=(why, *coding.notes))


def _of_lossy(masks: Sequence[MaskValues], rules: Rules) -> Coding:
    nothing = np.zeros(0, np.int64), np.zeros(0, np.uint8)
    lossy = sum(mask.lossy for mask in masks)
    pixels = np.zeros(VOID + 1, np.int64)
    for mask in masks:
        pixels[list(mask.values)] += np.array(mask.counts)
    changed = f"{lossy} of the {len(masks)} masks are JPEG or another lossy format"
    if rules.label_map is not None:
        return Coding(False, *nothing, rules.label_map, rules.class_names, (f"{changed}.",))
    near = int(pixels[: _NEAR + 1].sum() + pixels[VOID - _NEAR :].sum())
    if near < _NEARLY_ALL * pixels.sum() or not pixels[VOID - _NEAR :].any():
        remedy = split_between_peaks(pixels) or remedies(pixels, rules.class_names, rules.ignore)
        raise DataError(
            f"{rules.where}: {changed} ({_first(masks, rules, lossy=True)}), which changes the "
            f"labels along every edge, and their values do not lie near 0 and 255. {remedy} "
            "Better: export the masks again as PNG, without JPEG in between."
        )
    if faint := _lossless_and_faint(masks):
        raise DataError(_two_scales(masks, rules, faint))
    moved = 1 - (pixels[0] + pixels[VOID]) / pixels.sum()
    note = (
        f"{changed}, with values near 0 and 255: read as two classes, split halfway (0..127: 0, "
        f"128..255: 1), which changes {percent(moved) if moved else 'none'} of the pixels."
    )
    return Coding(False, *nothing, _THRESHOLD, rules.class_names, (note,))


def _lossless_and_faint(masks: Sequence[MaskValues]) -> dict[int, list[int]]:
    """The values that halving makes 0 in lossless masks of few or of low values, by mask."""
    found = {}
    for number, mask in enumerate(masks):
        low = [value for value in mask.values if 0 < value < _HALF]
        few = len(mask.values) <= _FEW or mask.values[-1] < _HALF
        if low and few and not mask.lossy:
            found[number] = low
    return found


def _two_scales(
    masks: Sequence[MaskValues], rules: Rules, faint: Mapping[int, Sequence[int]]
) -> str:
    """Lossy masks of 0 and 255 beside lossless ones of other values: are these class 1?"""
    first, last = min(low[0] for low in faint.values()), max(low[-1] for low in faint.values())
    as_class: dict[str, int | str] = {_span(0, first - 1): 0, _span(first, last): 1}
    halved: dict[str, int | str] = {_span(0, _HALF - 1): 0, _span(_HALF, VOID): 1}
    as_class |= {_span(last + 1, _HALF - 1): 0} if last + 1 < _HALF else {}
    lossy = [mask for mask in masks if mask.lossy]
    traces = sum(
        count
        for mask in lossy
        for value, count in zip(mask.values, mask.counts, strict=True)
        if first <= value <= last
    ) / sum(sum(mask.counts) for mask in lossy)
    files = [rules.mask_files[number] for number in faint]
    values = sorted({value for low in faint.values() for value in low})
    return (
        f"{rules.where}: {len(lossy)} of the {len(masks)} masks are of a lossy format and hold "
        f"values near 0 and 255 ({_first(masks, rules, lossy=True)}), while {len(files)} lossless "
        f"ones hold {listed([str(value) for value in values])} ({listed(files)}). If these are "
        f"class 1 as well: {setting({**as_class, _span(_HALF, VOID): 1})}, which also makes class "
        f"1 of {percent(traces) if traces else 'none'} of the pixels of the lossy masks. If they "
        f"are class 0: {setting(halved)}. Better: export all "
        "masks as PNG, with the same numbers."
    )


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}..{last}"


def _of_wide_numbers(masks: Sequence[MaskValues], rules: Rules) -> Coding:
    values, _ = all_values(masks)
    void = ignored(rules.ignore).of_values(values) == VOID
    if rules.label_map is not None:
        codes = mapped(masks, values, label_map_of(rules.label_map), void, rules)
        classes = label_map_of(rules.label_map).num_classes
        return coded(False, values, codes, classes, rules.class_names)
    kept = values[~void]
    if len(kept) == 2 and kept[0] == 0:
        codes = np.where(void, VOID, np.searchsorted(kept, values)).astype(np.int16)
        note = f"The masks hold only 0 and {kept[1]}: {kept[1]} is read as class 1."
        return coded(False, values, codes, 2, rules.class_names, (note,))
    raise DataError(_wide_refusal(masks, rules, kept))


def _wide_refusal(masks: Sequence[MaskValues], rules: Rules, kept: npt.NDArray[np.int64]) -> str:
    return (
        f"{rules.where}: the masks hold {len(kept)} different numbers, up to {kept.max()} "
        f"({_first(masks, rules, above=VOID)}), and 0 to 254 are the numbers of classes. "
        f"{both_readings([int(value) for value in kept], rules.ignore)}"
    )


def both_readings(values: Sequence[int], ignore: str | None = None) -> str:
    """What to set for numbers of objects, and what for numbers of classes; `ignore` stays set."""
    objects = objects_setting(ignore, void=values[-1] == _WIDE_VOID)
    text = f"If they are the numbers of objects, of one class: {objects}."
    if len(values) <= MOST_COLOURS:
        dense: dict[str, int | str] = {str(value): k for k, value in enumerate(values)}
        also = ""
        if values[-1] == _WIDE_VOID and len(values) > 2:
            dense[str(_WIDE_VOID)] = "void"
            also = f" ({_WIDE_VOID}: {len(values) - 1} instead of void if it is a class)"
        text += f" If each number is a class of its own: {setting(dense, ignore)}{also}."
    else:
        text += (
            f" If each is a class of its own, name all {len(values)} in classes.txt, or say which "
            "are: --set 'data.label_map={0: 0, 1..99: 1, nonzero: 2}'."
        )
    return text


def objects_setting(ignore: str | None, *, void: bool = False) -> str:
    """What to set where every value but 0 is an object of one class; `void`: but not 65535."""
    if void:
        return setting({"0": 0, str(_WIDE_VOID): "void", "nonzero": 1}, ignore)
    if ignore and ignored_values(ignore)[0]:  # 0 must be the other class
        return f"{setting(_OBJECTS)} --set 'data.ignore=null'"
    return setting(_OBJECTS, ignore)


def _first(
    masks: Sequence[MaskValues], rules: Rules, *, lossy: bool = False, above: int | None = None
) -> str:
    """The first mask of the kind in question."""
    for file, mask in zip(rules.mask_files, masks, strict=True):
        if mask.lossy if lossy else mask.values[-1] > (above or 0):
            return f"such as {file}"
    return rules.where
