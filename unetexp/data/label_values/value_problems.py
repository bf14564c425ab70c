"""Whether the values in masks are the numbers of classes, where no label map says so.

K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from unetexp.data.label_values.instances import MaskAt, instance_problems, may_be_objects
from unetexp.data.label_values.label_map import ignored_values
from unetexp.data.label_values.mask_coding import objects_setting
from unetexp.data.label_values.remedies import remedies, setting, shares
from unetexp.data.label_values.smoothing import looks_smoothed
from unetexp.data.label_values.split_labels import SplitLabels
from unetexp.data.labels import VOID
from unetexp.errors import listed

_SELDOM = 0.5  # as often as elsewhere: 255 beside 1, where the two mean the same


@dataclass(frozen=True)
class Unmapped:
    """The values in the masks of a set without a label map."""

    splits: Mapping[str, SplitLabels]
    table: npt.NDArray[np.int16]  # (256,) the class of each, or VOID
    num_classes: int  # K
    ignore: str | None = None  # as in label_map.py
    mask_at: MaskAt | None = None
    wide: bool = False  # they are stored with more than 8 bits

    @property
    def pixels(self) -> npt.NDArray[np.int64]:
        """Of each stored value (256,)."""
        counts = [split.counts.sum(axis=0, dtype=np.int64) for split in self.splits.values()]
        return np.asarray(np.sum(counts, axis=0, dtype=np.int64))

    def kept(self) -> Unmapped:
        """Without what `ignore` makes void."""
        void = ignored_values(self.ignore)
        splits = {
            name: replace(split, counts=np.where(void, 0, split.counts).astype(np.int32))
            for name, split in self.splits.items()
        }
        return replace(self, splits=splits)


def value_problems(values: Unmapped, *, named: bool) -> list[str]:
    """Why no model should be trained on the values; `named` if a file names the classes."""
    if problems := _mixed_scales(values):
        return problems
    if named:
        return []
    kept = values.kept()
    if values.mask_at is not None:
        problems = instance_problems(kept.splits, values.mask_at, values.ignore, wide=values.wide)
    return problems or _gaps(values, kept)


def wide_note(labels: Sequence[int], ignore: str | None) -> tuple[str, ...]:
    """What to say of the classes `labels` that are stored with more than 8 bits, as objects are."""
    if len(labels) < 3:
        return ()
    return (
        f"The masks are stored with more than 8 bits and hold {len(labels)} values, which are read "
        f"as classes. If they are numbers of objects, of one class: {objects_setting(ignore)}.",
    )


def _gaps(values: Unmapped, kept: Unmapped) -> list[str]:
    """Class numbers below the largest that occur in no mask, and values made by smoothing."""
    held = set(values.table[kept.pixels > 0].tolist())
    count = values.num_classes
    absent = [k for k in range(count) if k not in held]
    smoothed = values.mask_at is not None and looks_smoothed(
        kept.splits, kept.pixels, values.mask_at
    )
    if not absent and not smoothed:
        return []
    without = (
        f", and {listed([str(value) for value in absent])} "
        f"{'occurs' if len(absent) == 1 else 'occur'} in no mask"
    )
    return [
        f"the masks hold the values {shares(values.pixels)}{_void_by(values.ignore)}. Read as the "
        f"numbers of classes they make {count} classes{without if absent else ''}. "
        f"{_as_objects(kept)}{remedies(kept.pixels, None, values.ignore, smoothed=smoothed)} If "
        f"they are class numbers and some classes just do not occur, name all {count} in "
        "classes.txt, one per line."
    ]


def _as_objects(kept: Unmapped) -> str:
    """What to set for numbers of objects, where the values may be such numbers."""
    if not kept.pixels[0] or (kept.pixels[1:] > 0).sum() < 2 or kept.mask_at is None:
        return ""
    if not kept.wide and not may_be_objects(kept.splits, kept.mask_at, kept.ignore):
        return ""
    return f"If they are numbers of objects, of one class: {objects_setting(kept.ignore)}. "


def _void_by(ignore: str | None) -> str:
    return f", of which data.ignore makes {ignore} void" if ignore else ""


def _mixed_scales(values: Unmapped) -> list[str]:
    """Masks of 0 and 1 beside masks of 0 and 255: is 255 the class 1, or void?"""
    void = ignored_values(values.ignore)
    others = void & (np.arange(VOID + 1) != VOID)
    if np.flatnonzero(np.where(others, 0, values.pixels)).tolist() != [0, 1, VOID]:
        return []
    holds = {name: split.counts > 0 for name, split in values.splits.items()}
    if not _apart(np.concatenate(list(holds.values()))):
        return []
    examples: dict[int, list[str]] = {1: [], VOID: []}
    for name, split in values.splits.items():
        held = holds[name]
        for value, other in ((1, VOID), (VOID, 1)):
            only = held[:, 0] & held[:, value] & ~held[:, other]
            examples[value] += [f"{split.names[i]} ({name})" for i in np.flatnonzero(only).tolist()]
    if not all(examples.values()):
        return []
    ignored: dict[str, int | str] = {str(v): "void" for v in np.flatnonzero(others)}
    anew = " --set 'data.ignore=null'" if void[VOID] else ""
    as_class = setting({"0": 0, "1": 1, "255": 1, **ignored}, None if anew else values.ignore)
    return [
        f"some masks hold 0 and 1 ({listed(examples[1])}), others 0 and 255 "
        f"({listed(examples[VOID])}). If 255 means class 1: {as_class}{anew}. If it is void: "
        f"{setting({'0': 0, '1': 1, '255': 'void'}, values.ignore)}."
    ]


def _apart(holds: npt.NDArray[np.bool_]) -> bool:
    """Whether few masks (masks, 256) hold both 1 and 255: as void, 255 would not shun the 1."""
    ones, void = holds[:, 1], holds[:, VOID]
    both, without = (void & ones).sum(), (void & ~ones).sum()
    rare = both / max(ones.sum(), 1) < _SELDOM * without / max((~ones).sum(), 1)
    return bool(rare and both < _SELDOM * without)
