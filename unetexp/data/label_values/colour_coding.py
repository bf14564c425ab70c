"""Classes for masks that hold colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import numpy.typing as npt

from unetexp.data.label_values.coding import Coding, Rules, all_values, channels, coded, mapped
from unetexp.data.label_values.label_map import (
    LabelMap,
    hex_colour,
    ignored,
    label_map_of,
)
from unetexp.data.label_values.named_colours import require_order
from unetexp.data.label_values.remedies import percent, setting
from unetexp.data.label_values.voc_palette import BORDER, has_border
from unetexp.data.labels import VOID
from unetexp.data.reading.mask_values import GREY, MaskValues
from unetexp.errors import DataError, listed

MOST_COLOURS = 64  # more are no classes
_SHOWN = 12
_COMMON = 0.01  # share of the pixels above which a colour may be a class of smoothed masks
_APART = 48.0  # distance in RGB of two colours that are classes
_BETWEEN = 1.03  # the way over a colour, as a multiple of the straight one, that makes it a mixture


def colours_coded(masks: Sequence[MaskValues], rules: Rules) -> Coding:
    """Classes by a label map, by a table beside the data, or by the colours' order.

    Raises DataError for colours without a class, and for too many where nothing names them.
    """
    masks = [mask if mask.colour else _as_colours(mask) for mask in masks]
    values, pixels = all_values(masks)
    border = _border(values, rules)
    void = (ignored(rules.ignore).of_colours(values) == VOID) | border
    lossy = any(mask.lossy for mask in masks)
    many = any(mask.more for mask in masks) or len(values[~void]) > MOST_COLOURS
    table = rules.colours or {}
    if rules.label_map is not None:
        label_map = label_map_of(rules.label_map)
        if lossy or many:
            return _split_by_nearest(masks, values, pixels, label_map, void, rules)
        codes = mapped(masks, values, label_map, void, rules)
        return coded(True, values, codes, label_map.num_classes, rules.class_names)
    if table:
        label_map = LabelMap(colours=tuple(sorted(table.items())))
        if lossy or many:
            return _split_by_nearest(masks, values, pixels, label_map, void, rules)
        codes = mapped(masks, values, label_map, void, rules)
        note = f"Colours are read by the table beside the data: {_colour_list(table, rules)}."
        found = coded(True, values, codes, label_map.num_classes, rules.class_names, (note,))
    elif lossy or many:
        raise DataError(_colour_refusal(values, pixels, rules, lossy))
    else:
        found = _by_order(values, void, rules)
    return _with_border(found) if border.any() else found


def _border(values: npt.NDArray[np.int64], rules: Rules) -> npt.NDArray[np.bool_]:
    """Which of the colours is the border of objects in VOC's palette, where nothing names it."""
    named = rules.label_map or rules.ignore or BORDER in (rules.colours or {})
    found: npt.NDArray[np.bool_] = values == BORDER
    return found if not named and has_border(values.tolist()) else np.zeros_like(found)


def _with_border(coding: Coding) -> Coding:
    note = (
        f"{hex_colour(BORDER)} is the border of objects in Pascal VOC's palette, and the other "
        "colours are of it too: it is read as void. To keep it as a class, name all colours in "
        "data.label_map."
    )
    void = f"{hex_colour(BORDER)} (the border in Pascal VOC's palette)"
    return replace(coding, notes=(*coding.notes, note), void=void)


def _by_order(values: npt.NDArray[np.int64], void: npt.NDArray[np.bool_], rules: Rules) -> Coding:
    """The colours as classes, black first."""
    kept = [int(value) for value in values[~void]]
    if rules.class_names is not None:
        require_order(rules.where, kept, rules.class_names, values[void].tolist())
    names = rules.class_names or tuple(hex_colour(value)[1:] for value in kept)
    codes = np.where(void, VOID, np.cumsum(~void) - 1).astype(np.int16)
    shown = ", ".join(
        f"{number} {hex_colour(colour)}" + (f" {name}" if rules.class_names else "")
        for number, (colour, name) in enumerate(zip(kept, names, strict=True))
    )
    note = (
        f"The masks hold {len(kept)} colours, which are read as classes, black first, then by "
        f"number: {shown}. To name, merge or leave out some, set data.label_map or data.ignore."
    )
    return coded(True, values, codes, len(kept), names, (note,))


def _split_by_nearest(
    masks: Sequence[MaskValues],
    values: npt.NDArray[np.int64],
    pixels: npt.NDArray[np.int64],
    label_map: LabelMap,
    void: npt.NDArray[np.bool_],
    rules: Rules,
) -> Coding:
    """The classes of the nearest colours that the map names."""
    named = dict(label_map.colours) | {
        start * GREY: target for start, end, target in label_map.spans if start == end <= VOID
    }
    named |= {int(value): VOID for value in values[void]}
    if label_map.nonzero is not None:
        codes = mapped(masks, values, label_map, void, rules)
        return coded(True, values, codes, label_map.num_classes, rules.class_names)
    stored = np.array(sorted(named), np.int64)
    codes = np.array([named[int(colour)] for colour in stored], np.int16)
    moved = 1 - pixels[np.isin(values, stored)].sum() / pixels.sum()
    note = (
        f"Each colour counts as the nearest of {listed(map(hex_colour, stored.tolist()), _SHOWN)}, "
        f"which changes {percent(moved)} of the pixels."
    )
    return coded(
        True, stored, codes, label_map.num_classes, rules.class_names, (note,), nearest=True
    )


def _colour_refusal(
    values: npt.NDArray[np.int64], pixels: npt.NDArray[np.int64], rules: Rules, lossy: bool
) -> str:
    strong = _strong(values, pixels)
    levels: dict[str, int | str] = {f'"{hex_colour(v)}"': k for k, v in enumerate(strong)}
    objects = setting({'"#000000"': 0, "nonzero": 1})
    why = "a lossy format such as JPEG has changed them" if lossy else "too many to be classes"
    return (
        f"{rules.where}: the masks hold {len(values)} or more colours: {why}. If they were "
        f"smoothed or compressed and mean {len(strong)} classes, have each pixel count as the "
        f"nearest of their colours: {setting(levels)}. If each colour is an object, of one class: "
        f"{objects}."
    )


def _strong(values: npt.NDArray[np.int64], pixels: npt.NDArray[np.int64]) -> list[int]:
    """The colours, ascending, that are common, and are not made by blurring more common ones."""
    by_count = np.argsort(-pixels, kind="stable")[:MOST_COLOURS]
    kept: list[int] = []
    for index in by_count:
        rgb = channels(int(values[index]))
        away = [np.linalg.norm(rgb - channels(colour)) for colour in kept]
        between = any(
            away[i] + away[j] < _BETWEEN * np.linalg.norm(channels(a) - channels(b))
            for (i, a), (j, b) in combinations(enumerate(kept), 2)
        )
        common = pixels[index] >= _COMMON * pixels.sum() or len(kept) < 2
        if common and not between and all(distance > _APART for distance in away):
            kept.append(int(values[index]))
    return sorted(kept[:_SHOWN])


def _as_colours(mask: MaskValues) -> MaskValues:
    """By the colours of the palette, or as greys."""
    colours = np.array(mask.palette or [value * GREY for value in mask.values], np.int64)
    values, inverse = np.unique(colours, return_inverse=True)
    counts = np.bincount(inverse, weights=mask.counts).astype(np.int64)
    return MaskValues(tuple(values.tolist()), tuple(counts.tolist()), True, mask.lossy, mask.more)


def _colour_list(table: Mapping[int, int], rules: Rules) -> str:
    names = rules.class_names or ()
    shown = [
        f"{hex_colour(colour)} {'void' if target == VOID else names[target]}"
        for colour, target in table.items()
        if target == VOID or target < len(names)
    ]
    return listed(shown, _SHOWN)
