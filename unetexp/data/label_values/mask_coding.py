"""Classes for masks that hold colours, 16-bit numbers or the traces of lossy compression.

K classes, H W mask size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from unetexp.data.collection import Labels
from unetexp.data.label_values.label_map import (
    UNMAPPED,
    LabelMap,
    hex_colour,
    ignored,
    label_map_of,
)
from unetexp.data.label_values.remedies import percent, remedies, setting
from unetexp.data.labels import VOID
from unetexp.data.reading.mask_values import GREY, MaskValues, colours_of, recoded, single
from unetexp.data.reading.stored_mask import StoredMask
from unetexp.errors import DataError, listed

MOST_COLOURS = 64  # more are no classes
_NEAR = 32  # of 0 or 255: how far lossy compression moves most values of a binary mask
_NEARLY_ALL = 0.97  # share of the pixels that lie near 0 or 255
_SHOWN = 12
_COMMON = 0.01  # share of the pixels above which a colour may be a class of smoothed masks
_APART = 48.0  # distance in RGB of two colours that are classes
_BETWEEN = 1.03  # the way over a colour, as a multiple of the straight one, that makes it a mixture
_THRESHOLD = "0..127: 0, 128..255: 1"


@dataclass(frozen=True)
class Rules:
    """What is said about the meaning of stored values."""

    where: str  # the set's name in messages
    mask_files: Sequence[str]
    label_map: str | None = None
    ignore: str | None = None
    class_names: tuple[str, ...] | None = None
    colours: Mapping[int, int] | None = None  # 0xrrggbb -> class, from a table beside the data


@dataclass(frozen=True)
class Coding:
    """How stored masks become numbers of 8 bits; `label_map` then says their classes."""

    colour: bool
    stored: npt.NDArray[np.int64]  # ascending; empty: greys of lossy masks, kept as they are
    codes: npt.NDArray[np.uint8]
    label_map: str
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    nearest: bool = False  # colours that are not listed count as the nearest one that is

    def record(self) -> list[Any]:
        """What the fingerprint of the data depends on."""
        return [self.colour, self.stored.tolist(), self.codes.tolist(), self.nearest]

    def of(self, mask: StoredMask) -> Labels:
        """The numbers (H, W) uint8 of a mask."""
        values = colours_of(mask) if self.colour else single(mask)
        if not len(self.stored):
            return values.astype(np.uint8)
        return recoded(values, self._codes)

    def _codes(self, values: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        if self.nearest:
            return self.codes[_nearest(values, self.stored)]
        return self.codes[np.searchsorted(self.stored, values)]


def coding_of(masks: Sequence[MaskValues], rules: Rules) -> Coding | None:
    """How the masks of a set are coded; None where they hold numbers of at most 8 bits.

    Raises DataError, with both readings, where more than one is possible.
    """
    if any(mask.colour for mask in masks) or _names_colours(rules):
        return _of_colours(masks, rules)
    if max(mask.values[-1] for mask in masks) > VOID:
        return _of_wide_numbers(masks, rules)
    if any(mask.lossy for mask in masks):
        return _of_lossy(masks, rules)
    return None


def names_colours(label_map: str | None, ignore: str | None) -> bool:
    """Whether a setting names a colour that is no grey, so that masks are read as colours."""
    colours = [*ignored(ignore).colours, *(label_map_of(label_map).colours if label_map else ())]
    return any(colour != (colour & 255) * GREY for colour, _ in colours)


def _names_colours(rules: Rules) -> bool:
    return names_colours(rules.label_map, rules.ignore)


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
        raise DataError(
            f"{rules.where}: {changed} ({_first(masks, rules, lossy=True)}), which changes the "
            f"labels along every edge, and their values do not lie near 0 and 255. "
            f"{remedies(pixels, rules.class_names)} Better: export the masks again as PNG, without "
            "JPEG in between."
        )
    moved = 1 - (pixels[0] + pixels[VOID]) / pixels.sum()
    note = (
        f"{changed}, with values near 0 and 255: read as two classes, split halfway (0..127: 0, "
        f"128..255: 1), which changes {percent(moved) if moved else 'none'} of the pixels."
    )
    return Coding(False, *nothing, _THRESHOLD, rules.class_names, (note,))


def _of_wide_numbers(masks: Sequence[MaskValues], rules: Rules) -> Coding:
    values, _ = _all_values(masks)
    void = ignored(rules.ignore).of_values(values) == VOID
    if rules.label_map is not None:
        codes = _mapped(masks, values, label_map_of(rules.label_map), void, rules)
        classes = label_map_of(rules.label_map).num_classes
        return _coded(False, values, codes, classes, rules.class_names)
    kept = values[~void]
    if len(kept) == 2 and kept[0] == 0:
        codes = np.where(void, VOID, np.searchsorted(kept, values)).astype(np.int16)
        note = f"The masks hold only 0 and {kept[1]}: {kept[1]} is read as class 1."
        return _coded(False, values, codes, 2, rules.class_names, (note,))
    raise DataError(_wide_refusal(masks, rules, kept))


def _wide_refusal(masks: Sequence[MaskValues], rules: Rules, kept: npt.NDArray[np.int64]) -> str:
    return (
        f"{rules.where}: the masks hold {len(kept)} different numbers, up to {kept.max()} "
        f"({_first(masks, rules, above=VOID)}), and 0 to 254 are the numbers of classes. "
        f"{both_readings([int(value) for value in kept])}"
    )


def both_readings(values: Sequence[int]) -> str:
    """What to set for numbers of objects, and what for numbers of classes."""
    objects = "--set 'data.label_map={0: 0, nonzero: 1}'"
    text = f"If they are the numbers of objects, of one class: {objects}."
    if len(values) <= MOST_COLOURS:
        dense = {str(value): number for number, value in enumerate(values)}
        text += f" If each number is a class of its own: {setting(dense)}."
    else:
        text += (
            f" If each is a class of its own, name all {len(values)} in classes.txt, or say which "
            "are: --set 'data.label_map={0: 0, 1..99: 1, nonzero: 2}'."
        )
    return text


def _of_colours(masks: Sequence[MaskValues], rules: Rules) -> Coding:
    masks = [mask if mask.colour else _as_colours(mask) for mask in masks]
    values, pixels = _all_values(masks)
    void = ignored(rules.ignore).of_colours(values) == VOID
    lossy = any(mask.lossy for mask in masks)
    many = any(mask.more for mask in masks) or len(values[~void]) > MOST_COLOURS
    table = rules.colours or {}
    if rules.label_map is not None:
        label_map = label_map_of(rules.label_map)
        if lossy or many:
            return _split_by_nearest(masks, values, pixels, label_map, void, rules)
        codes = _mapped(masks, values, label_map, void, rules)
        return _coded(True, values, codes, label_map.num_classes, rules.class_names)
    if table:
        label_map = LabelMap(colours=tuple(sorted(table.items())))
        if lossy or many:
            return _split_by_nearest(masks, values, pixels, label_map, void, rules)
        codes = _mapped(masks, values, label_map, void, rules)
        note = f"Colours are read by the table beside the data: {_colour_list(table, rules)}."
        return _coded(True, values, codes, label_map.num_classes, rules.class_names, (note,))
    if lossy or many:
        raise DataError(_colour_refusal(values, pixels, rules, lossy))
    return _by_order(values, void, rules)


def _by_order(values: npt.NDArray[np.int64], void: npt.NDArray[np.bool_], rules: Rules) -> Coding:
    """The colours as classes, black first."""
    kept = [int(value) for value in values[~void]]
    if rules.class_names is not None and len(rules.class_names) != len(kept):
        raise DataError(
            f"{rules.where}: the masks hold {len(kept)} colours "
            f"({listed(map(hex_colour, kept), _SHOWN)}), but classes.txt names "
            f"{len(rules.class_names)} ({listed(rules.class_names)}). Say which is which: write "
            "the colour after each name in classes.txt (as in `road #804080`), or set "
            "data.label_map."
        )
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
    return _coded(True, values, codes, len(kept), names, (note,))


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
        codes = _mapped(masks, values, label_map, void, rules)
        return _coded(True, values, codes, label_map.num_classes, rules.class_names)
    stored = np.array(sorted(named), np.int64)
    codes = np.array([named[int(colour)] for colour in stored], np.int16)
    moved = 1 - pixels[np.isin(values, stored)].sum() / pixels.sum()
    note = (
        f"Each colour counts as the nearest of {listed(map(hex_colour, stored.tolist()), _SHOWN)}, "
        f"which changes {percent(moved)} of the pixels."
    )
    return _coded(
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
        rgb = _channels(int(values[index]))
        away = [np.linalg.norm(rgb - _channels(colour)) for colour in kept]
        between = any(
            away[i] + away[j] < _BETWEEN * np.linalg.norm(_channels(a) - _channels(b))
            for (i, a), (j, b) in combinations(enumerate(kept), 2)
        )
        common = pixels[index] >= _COMMON * pixels.sum() or len(kept) < 2
        if common and not between and all(distance > _APART for distance in away):
            kept.append(int(values[index]))
    return sorted(kept[:_SHOWN])


def _mapped(
    masks: Sequence[MaskValues],
    values: npt.NDArray[np.int64],
    label_map: LabelMap,
    void: npt.NDArray[np.bool_],
    rules: Rules,
) -> npt.NDArray[np.int16]:
    """The class of each stored value or colour. Raises DataError for one that has none."""
    colour = any(mask.colour for mask in masks) or _names_colours(rules)
    codes = label_map.of_colours(values) if colour else label_map.of_values(values)
    codes[void] = VOID
    stray = values[codes == UNMAPPED]
    if not len(stray):
        return codes
    said = hex_colour(int(stray[0])) if colour else str(stray[0])
    file = next(
        (f for f, m in zip(rules.mask_files, masks, strict=True) if stray[0] in m.values),
        rules.where,
    )
    by = "data.label_map" if rules.label_map else "the table of colours beside the data"
    kept = [hex_colour(int(v)) if colour else str(v) for v in values]
    raise DataError(
        f"{file}: the mask holds {said}, which {by} does not map. All masks together hold "
        f"{listed(kept, _SHOWN)}: add what is missing, as a class or as void, or leave it out: "
        f"--set 'data.ignore=[{', '.join(_quoted(int(v), colour) for v in stray[:_SHOWN])}]'."
    )


def _quoted(value: int, colour: bool) -> str:
    return f'"{hex_colour(value)}"' if colour else str(value)


def _coded(
    colour: bool,
    stored: npt.NDArray[np.int64],
    codes: npt.NDArray[np.int16],
    classes: int,
    names: tuple[str, ...] | None,
    notes: tuple[str, ...] = (),
    *,
    nearest: bool = False,
) -> Coding:
    identity = ", ".join(f"{k}: {k}" for k in range(max(classes, 2)))
    return Coding(colour, stored, codes.astype(np.uint8), identity, names, notes, nearest)


def _all_values(
    masks: Sequence[MaskValues],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All values that occur, ascending, and their pixels."""
    every = np.concatenate([np.array(mask.values, np.int64) for mask in masks])
    counts = np.concatenate([np.array(mask.counts, np.int64) for mask in masks])
    values, inverse = np.unique(every, return_inverse=True)
    return values, np.bincount(inverse, weights=counts).astype(np.int64)


def _as_colours(mask: MaskValues) -> MaskValues:
    greys = tuple(value * GREY for value in mask.values)
    return MaskValues(greys, mask.counts, True, mask.lossy, mask.more)


def _nearest(colours: npt.NDArray[np.int64], named: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The index of the colour of `named` that is nearest to each, by distance in RGB."""

    found = np.empty(len(colours), np.int64)
    for start in range(0, len(colours), 2**16):
        part = _channels(colours[start : start + 2**16])[:, np.newaxis] - _channels(named)
        found[start : start + 2**16] = (part**2).sum(axis=2).argmin(axis=1)
    return found


def _channels(packed: npt.NDArray[np.int64] | int) -> npt.NDArray[np.int64]:
    """Red, green and blue on the last axis."""
    wide = np.asarray(packed, np.int64)
    return np.stack([wide >> 16, wide >> 8 & 255, wide & 255], axis=-1)


def _first(
    masks: Sequence[MaskValues], rules: Rules, *, lossy: bool = False, above: int | None = None
) -> str:
    """The first mask of the kind in question."""
    for file, mask in zip(rules.mask_files, masks, strict=True):
        if mask.lossy if lossy else mask.values[-1] > (above or 0):
            return f"such as {file}"
    return rules.where


def _colour_list(table: Mapping[int, int], rules: Rules) -> str:
    names = rules.class_names or ()
    shown = [
        f"{hex_colour(colour)} {'void' if target == VOID else names[target]}"
        for colour, target in table.items()
        if target == VOID or target < len(names)
    ]
    return listed(shown, _SHOWN)
