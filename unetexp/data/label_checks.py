"""What the labels of a whole set mean, and whether one can learn from them.

K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unetexp.data.labels import VOID
from unetexp.errors import DataError, listed


@dataclass(frozen=True)
class SplitLabels:
    """How often each label occurs in each mask of a split."""

    names: Sequence[str]
    mask_files: Sequence[str]
    counts: npt.NDArray[np.int32]  # (masks, 256)


@dataclass(frozen=True)
class Meaning:
    """How the stored labels are to be read."""

    class_names: tuple[str, ...]  # K
    binary: bool  # 255 is class 1, not void
    notes: tuple[str, ...]

    def totals(self, counts: npt.NDArray[np.int32]) -> tuple[tuple[int, ...], int]:
        """Pixels of each class, and void pixels, of stored label counts (masks, 256)."""
        totals = counts.sum(axis=0, dtype=np.int64)
        if self.binary:
            return (int(totals[0]), int(totals[VOID])), 0
        return tuple(int(n) for n in totals[: len(self.class_names)]), int(totals[VOID])


def interpret(
    splits: Mapping[str, SplitLabels], class_names: tuple[str, ...] | None, where: str
) -> Meaning:
    """The meaning of the labels of the set that messages call `where`.

    `class_names` None: the masks say how many classes there are. Raises DataError for labels
    beyond the classes and for sets that nothing can be learnt from.
    """
    seen = np.stack([split.counts.any(axis=0) for split in splits.values()]).any(axis=0)
    present = np.flatnonzero(seen).tolist()
    if present == [VOID]:
        raise DataError(
            f"{where}: every pixel of every mask is 255, which is void: there is nothing to learn. "
            "Store the index of the class in each pixel, from 0 up."
        )
    binary = present == [0, VOID]
    labels = [0, 1] if binary else [label for label in present if label != VOID]
    names = class_names or tuple(str(label) for label in range(labels[-1] + 1))
    if binary and len(names) != 2:
        raise DataError(
            f"{where}: the masks hold only 0 and 255, which makes two classes, but {len(names)} "
            "are named: name two, or store the index of the class in each pixel."
        )
    if not binary:
        _check_range(splits, names)
    if len(labels) < 2 or len(names) < 2:
        raise DataError(
            f"{where}: all labelled pixels of all masks are of one class, {labels[0]} "
            f"({names[labels[0]]}): a segmentation needs two or more. Label the background as a "
            "class of its own."
        )
    meaning = Meaning(names, binary, ())
    _check_splits(splits, meaning, where)
    return Meaning(names, binary, tuple(_notes(splits, meaning, named=class_names is not None)))


def _check_range(splits: Mapping[str, SplitLabels], names: tuple[str, ...]) -> None:
    for split in splits.values():
        beyond = split.counts[:, len(names) : VOID]
        if beyond.any():
            mask, label = np.argwhere(beyond)[0]
            raise DataError(
                f"{split.mask_files[mask]}: the mask holds the label {label + len(names)}, but "
                f"there are {len(names)} classes, 0 to {len(names) - 1} ({listed(names)}). "
                "Correct the mask, or name all classes in classes.txt."
            )


def _check_splits(splits: Mapping[str, SplitLabels], meaning: Meaning, where: str) -> None:
    for name, split in splits.items():
        classes, _ = meaning.totals(split.counts)
        if not any(classes):
            raise DataError(
                f"{where}: every pixel of every mask in the {name} split is void (255): label "
                "some of them, or split the images otherwise."
            )
        if name == "train" and sum(count > 0 for count in classes) < 2:
            raise DataError(
                f"{where}: the masks of the train split hold one class only, "
                f"{meaning.class_names[int(np.argmax(classes))]}: the others cannot be learnt. "
                "Add images of them, or split the images otherwise."
            )


def _notes(splits: Mapping[str, SplitLabels], meaning: Meaning, *, named: bool) -> list[str]:
    """What the user should hear about labels that are allowed and may be a mistake."""
    notes = []
    if meaning.binary:
        notes.append("The masks hold only 0 and 255: 255 is read as class 1, not as void.")
    totals = {name: meaning.totals(split.counts)[0] for name, split in splits.items()}
    present = [any(counts) for counts in zip(*totals.values(), strict=True)]
    absent = [n for n, there in zip(meaning.class_names, present, strict=True) if not there]
    if absent:
        hint = "" if named else " If the masks hold grey levels, number the classes from 0 up."
        notes.append(f"Classes that occur in no mask at all: {listed(absent)}.{hint}")
    unlearnt = [
        name
        for name, there, count in zip(meaning.class_names, present, totals["train"], strict=True)
        if there and not count
    ]
    if unlearnt:
        notes.append(f"Classes that occur in no mask of the train split: {listed(unlearnt)}.")
    if not meaning.binary:
        notes += _void_notes(splits)
    return notes


def _void_notes(splits: Mapping[str, SplitLabels]) -> list[str]:
    notes, void_only, looks_binary = [], [], []
    for name, split in splits.items():
        masks = [f"{member} ({name})" for member in split.names]
        zero, void = split.counts[:, 0] > 0, split.counts[:, VOID] > 0
        labelled = split.counts[:, :VOID].any(axis=1)
        other = split.counts[:, 1:VOID].any(axis=1)
        void_only += [masks[i] for i in np.flatnonzero(~labelled).tolist()]
        looks_binary += [masks[i] for i in np.flatnonzero(zero & void & ~other).tolist()]
    if void_only:
        notes.append(f"Masks in which every pixel is void (255): {listed(void_only)}.")
    if looks_binary:
        notes.append(
            "Masks that hold only 0 and 255, while others hold more labels, so that 255 is void "
            f"in all of them: {listed(looks_binary)}."
        )
    return notes
