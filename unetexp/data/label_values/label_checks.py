"""The meaning of the values in the masks of a whole set, and whether to train on them.

K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unetexp.data.label_values.coverage import coverage_problems
from unetexp.data.label_values.instances import MaskAt
from unetexp.data.label_values.label_map import (
    AS_STORED,
    UNMAPPED,
    ignored_values,
    label_map_of,
    value_table,
)
from unetexp.data.label_values.remedies import percent, remedies, shares
from unetexp.data.label_values.smoothing import looks_smoothed
from unetexp.data.label_values.split_labels import SplitLabels
from unetexp.data.label_values.value_problems import Unmapped, value_problems, wide_note
from unetexp.data.labels import VOID
from unetexp.errors import DataError, listed


@dataclass(frozen=True)
class Meaning:
    """The interpretation of the stored values."""

    class_names: tuple[str, ...]  # K
    table: npt.NDArray[np.int16]  # (256,) the class of each stored value, or VOID
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()  # why no model should be trained on the set
    lacking: bool = False  # the problems are classes that a split lacks, not the values

    @property
    def as_stored(self) -> bool:
        """Whether the stored values are the classes already."""
        return bool((self.table == AS_STORED).all())

    def by_class(self, counts: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """Pixels of each class (masks, K), of stored value counts (masks, 256)."""
        classes = range(len(self.class_names))
        return np.stack([counts[:, self.table == k].sum(axis=1) for k in classes], axis=1)

    def totals(self, counts: npt.NDArray[np.int32]) -> tuple[tuple[int, ...], int]:
        """Pixels of each class, and void pixels, of stored value counts (masks, 256)."""
        classes = self.by_class(counts).sum(axis=0)
        return tuple(classes.tolist()), int(counts[:, self.table == VOID].sum())


def interpret(
    splits: Mapping[str, SplitLabels],
    class_names: tuple[str, ...] | None,
    where: str,
    label_map: str | None = None,
    split_method: str = "folders",
    ignore: str | None = None,
    mask_at: MaskAt | None = None,
    stored: Sequence[tuple[str, int]] = (),
    *,
    wide: bool = False,
) -> Meaning:
    """The meaning of the values in the masks of a set; `where` is its name in messages.

    `class_names` None: the masks or the label map say how many classes there are. `ignore`, as in
    label_map.py, names values that are void; `mask_at` reads a mask again; `stored` are the values
    of the files where those here are codes of them; `wide` if these are stored with more than 8
    bits. Raises DataError for values without a class and for sets on which no model can even be
    evaluated.
    """
    counts = np.concatenate([split.counts for split in splits.values()])
    pixels = counts.sum(axis=0, dtype=np.int64)
    table = value_table(pixels > 0, label_map, ignore)
    _check_mapped(splits, table, where)
    labels = sorted(set(table[pixels > 0].tolist()) - {VOID})
    if not labels:
        plain = label_map is None and ignore is None
        void = "255, which is void" if plain else "void by data.label_map or data.ignore"
        raise DataError(
            f"{where}: every pixel of every mask is {void}: there is nothing to learn. "
            "Store the index of the class in each pixel, from 0 up."
        )
    names = class_names or tuple(str(k) for k in range(_num_classes(labels, label_map)))
    _check_names(splits, names, table, where, label_map, ignore, mask_at)
    if len(labels) < 2:
        hint = _of_one_class(pixels, class_names, ignore)
        raise DataError(
            f"{where}: all labelled pixels of all masks are of one class, {labels[0]} "
            f"({names[labels[0]]}): a segmentation needs two or more. Label the background as a "
            f"class of its own.{hint if label_map is None else ''}"
        )
    meaning = Meaning(names, table)
    _check_splits(splits, meaning, where)
    problems: list[str] = []
    if label_map is None:
        values = Unmapped(splits, table, len(names), ignore, mask_at, wide)
        problems = value_problems(values, named=class_names is not None)
    holds = {name: meaning.by_class(split.counts) > 0 for name, split in splits.items()}
    named = class_names is not None
    keys = stored or [(str(value), value) for value in range(VOID + 1)]
    lacking = problems or coverage_problems(holds, names, table, split_method, keys, named=named)
    notes = tuple(_notes(splits, meaning, label_map, ignore))
    if wide and label_map is None and class_names is None and not problems:
        notes = (*wide_note(labels, ignore), *notes)
    return Meaning(names, table, notes, tuple(lacking), bool(lacking and not problems))


def _of_one_class(
    pixels: npt.NDArray[np.int64], class_names: Sequence[str] | None, ignore: str | None
) -> str:
    """What to set where all that is not void is of one class."""
    kept = np.where(ignored_values(ignore), 0, pixels)
    if (kept > 0).sum() > 1:
        return f" {remedies(kept, class_names, ignore)}"
    without = "" if ignore is None else " Or make nothing void: --set 'data.ignore=null'."
    return without if (pixels > 0).sum() > 1 else ""


def _num_classes(labels: Sequence[int], label_map: str | None) -> int:
    if label_map is None:
        return labels[-1] + 1
    return label_map_of(label_map).num_classes


def _check_mapped(
    splits: Mapping[str, SplitLabels], table: npt.NDArray[np.int16], where: str
) -> None:
    for split in splits.values():
        stray = np.where(table == UNMAPPED, split.counts, 0)
        if stray.any():
            mask, value = np.argwhere(stray)[0]
            pixels = sum(s.counts.sum(axis=0, dtype=np.int64) for s in splits.values())
            assert not isinstance(pixels, int)
            raise DataError(
                f"{split.mask_files[mask]}: the mask holds the value {value}, which "
                "data.label_map (or codes.txt beside the data) does not map. The masks of "
                f"{where} hold {shares(pixels)}: add what is missing, as a class or as void."
            )


def _check_names(
    splits: Mapping[str, SplitLabels],
    names: tuple[str, ...],
    table: npt.NDArray[np.int16],
    where: str,
    label_map: str | None,
    ignore: str | None,
    mask_at: MaskAt | None,
) -> None:
    """Raise DataError if the number of classes in classes.txt does not fit the masks."""
    if label_map is not None:
        made = _num_classes((), label_map)
        if made != len(names):
            raise DataError(
                f"{where}: data.label_map makes {made} classes, but classes.txt names "
                f"{len(names)} ({listed(names)}): name {made}, one per line, in the map's order."
            )
    elif table[VOID] != VOID:  # the masks hold only two values
        if len(names) != 2:
            raise DataError(
                f"{where}: the masks hold only 0 and 255, which makes two classes, but "
                f"{len(names)} are named: name two, or store the index of the class in each pixel."
            )
    else:
        _check_range(splits, names, table, ignore, mask_at)


def _check_range(
    splits: Mapping[str, SplitLabels],
    names: tuple[str, ...],
    table: npt.NDArray[np.int16],
    ignore: str | None,
    mask_at: MaskAt | None,
) -> None:
    strange = (table >= len(names)) & (table != VOID)
    for split in splits.values():
        beyond = np.where(strange, split.counts, 0)
        if beyond.any():
            mask, label = np.argwhere(beyond)[0]
            counts = np.concatenate([split.counts for split in splits.values()])
            pixels = counts.sum(axis=0, dtype=np.int64)
            kept = np.where(ignored_values(ignore), 0, pixels)
            smoothed = mask_at is not None and looks_smoothed(splits, kept, mask_at)
            raise DataError(
                f"{split.mask_files[mask]}: the mask holds the label {label}, but "
                f"there are {len(names)} classes, 0 to {len(names) - 1} ({listed(names)}). "
                "Correct the mask, or name all classes in classes.txt. All masks together hold "
                f"{shares(pixels)}. {remedies(kept, names, ignore, smoothed=smoothed)}"
            )


def _check_splits(splits: Mapping[str, SplitLabels], meaning: Meaning, where: str) -> None:
    for name, split in splits.items():
        classes, _ = meaning.totals(split.counts)
        if not any(classes):
            raise DataError(
                f"{where}: every pixel of every mask in the {name} split is void (255): label "
                "some of them, or split the images differently."
            )
        if name == "train" and sum(count > 0 for count in classes) < 2:
            raise DataError(
                f"{where}: the masks of the train split hold one class only, "
                f"{meaning.class_names[int(np.argmax(classes))]}: the others cannot be learnt. "
                "Add images of them, or split the images differently."
            )


def _notes(
    splits: Mapping[str, SplitLabels], meaning: Meaning, label_map: str | None, ignore: str | None
) -> list[str]:
    """What to tell the user about labels that are allowed but may be a mistake."""
    notes = []
    if label_map is None and ignore is None and not meaning.as_stored:
        notes.append("The masks hold only 0 and 255: 255 is read as class 1, not as void.")
    if label_map is None and ignore is not None:
        notes += _ignored_notes(splits, meaning, ignore)
    if label_map is not None:
        notes += _moved_notes(splits, label_map)
    totals = {name: meaning.totals(split.counts)[0] for name, split in splits.items()}
    present = [any(counts) for counts in zip(*totals.values(), strict=True)]
    absent = [n for n, there in zip(meaning.class_names, present, strict=True) if not there]
    if absent:
        notes.append(f"Classes that occur in no mask at all: {listed(absent)}.")
    for split, counts in totals.items():
        columns = zip(meaning.class_names, present, counts, strict=True)
        missing = [name for name, there, count in columns if there and not count]
        if missing:
            notes.append(f"Classes that occur in no mask of the {split} split: {listed(missing)}.")
    return notes + _void_notes(splits, meaning)


def _ignored_notes(splits: Mapping[str, SplitLabels], meaning: Meaning, ignore: str) -> list[str]:
    """Which stored values are which classes, where `ignore` has changed it."""
    present = np.any(np.concatenate([split.counts for split in splits.values()]) > 0, axis=0)
    kept = [int(v) for v in np.flatnonzero(present) if meaning.table[v] not in (VOID, UNMAPPED)]
    moved = [f"class {meaning.table[value]} (stored as {value})" for value in kept]
    if all(meaning.table[value] == value for value in kept):
        return []
    return [
        f"data.ignore makes {ignore} void, and the masks' values are read anew: {listed(moved)}."
    ]


def _moved_notes(splits: Mapping[str, SplitLabels], label_map: str) -> list[str]:
    """The share of pixels that ranges of the map set to another value than the usual one."""
    pixels = sum(split.counts.sum(axis=0, dtype=np.int64) for split in splits.values())
    assert not isinstance(pixels, int)
    moved = 0
    for start, end, target in label_map_of(label_map).spans:
        inside = pixels[start : end + 1]
        if end > start and target != VOID and inside.any():
            moved += int(inside.sum() - inside.max())
    if not moved:
        return []
    return [
        f"The ranges of data.label_map change {percent(moved / pixels.sum())} of the pixels: their "
        "values lie beside the one that most pixels of their class hold."
    ]


def _void_notes(splits: Mapping[str, SplitLabels], meaning: Meaning) -> list[str]:
    notes, void_only, looks_binary = [], [], []
    for name, split in splits.items():
        masks = [f"{member} ({name})" for member in split.names]
        zero, void = split.counts[:, 0] > 0, split.counts[:, VOID] > 0
        labelled = meaning.by_class(split.counts).any(axis=1)
        other = split.counts[:, 1:VOID].any(axis=1)
        void_only += [masks[i] for i in np.flatnonzero(~labelled).tolist()]
        if meaning.as_stored:
            looks_binary += [masks[i] for i in np.flatnonzero(zero & void & ~other).tolist()]
    if void_only:
        notes.append(f"Masks in which every pixel is void (255): {listed(void_only)}.")
    if looks_binary:
        notes.append(
            "Masks that hold only 0 and 255, while others hold more labels, so that 255 is void "
            f"in all of them: {listed(looks_binary)}."
        )
    return notes
