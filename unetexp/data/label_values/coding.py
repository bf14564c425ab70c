"""How stored masks become numbers of 8 bits.

K classes, H W mask size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from unetexp.data.labels import VOID
from unetexp.data.reading.mask_values import GREY, MaskValues, colours_of, recoded, single
from unetexp.data.reading.stored_mask import StoredMask
from unetexp.errors import DataError, listed

_SHOWN = 12


@dataclass(frozen=True)
class Rules:
    """What is said about the meaning of stored values."""

    where: str  # the set's name in messages
    mask_files: Sequence[str]
    label_map: str | None = None
    ignore: str | None = None
    class_names: tuple[str, ...] | None = None
    colours: Mapping[int, int] | None = None  # 0xrrggbb -> class, from a table beside the data
    indexed: bool = False  # indices of palettes are class numbers, whatever their colours


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
    void: str = ""  # what is void, in words

    def keys(self) -> tuple[tuple[str, int], ...]:
        """Each stored value, as a label map names it, and its code."""
        named = [_quoted(value, self.colour) for value in self.stored.tolist()]
        return tuple(zip(named, self.codes.tolist(), strict=True))

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


def mapped(
    masks: Sequence[MaskValues],
    values: npt.NDArray[np.int64],
    label_map: LabelMap,
    void: npt.NDArray[np.bool_],
    rules: Rules,
) -> npt.NDArray[np.int16]:
    """The class of each stored value or colour. Raises DataError for one that has none."""
    colour = any(mask.colour for mask in masks) or rules_name_colours(rules)
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


def coded(
    colour: bool,
    stored: npt.NDArray[np.int64],
    codes: npt.NDArray[np.int16],
    classes: int,
    names: tuple[str, ...] | None,
    notes: tuple[str, ...] = (),
    *,
    nearest: bool = False,
) -> Coding:
    """The coding in which the codes are the classes already."""
    identity = ", ".join(f"{k}: {k}" for k in range(max(classes, 2)))
    return Coding(colour, stored, codes.astype(np.uint8), identity, names, notes, nearest)


def all_values(
    masks: Sequence[MaskValues],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All values that occur, ascending, and their pixels."""
    every = np.concatenate([np.array(mask.values, np.int64) for mask in masks])
    counts = np.concatenate([np.array(mask.counts, np.int64) for mask in masks])
    values, inverse = np.unique(every, return_inverse=True)
    return values, np.bincount(inverse, weights=counts).astype(np.int64)


def _nearest(colours: npt.NDArray[np.int64], named: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The index of the colour of `named` that is nearest to each, by distance in RGB."""

    found = np.empty(len(colours), np.int64)
    for start in range(0, len(colours), 2**16):
        part = channels(colours[start : start + 2**16])[:, np.newaxis] - channels(named)
        found[start : start + 2**16] = (part**2).sum(axis=2).argmin(axis=1)
    return found


def channels(packed: npt.NDArray[np.int64] | int) -> npt.NDArray[np.int64]:
    """Red, green and blue on the last axis."""
    wide = np.asarray(packed, np.int64)
    return np.stack([wide >> 16, wide >> 8 & 255, wide & 255], axis=-1)


def names_colours(label_map: str | None, ignore: str | None) -> bool:
    """Whether a setting names a colour that is no grey, so that masks are read as colours."""
    colours = [*ignored(ignore).colours, *(label_map_of(label_map).colours if label_map else ())]
    return any(colour != (colour & 255) * GREY for colour, _ in colours)


def rules_name_colours(rules: Rules) -> bool:
    """Whether one of the settings does."""
    return names_colours(rules.label_map, rules.ignore)
