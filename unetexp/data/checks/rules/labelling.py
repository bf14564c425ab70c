"""What the values in the masks of a set mean, by the reader's own rules.

N samples, K classes, H W mask size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unetexp.data.checks.facts import SampleFacts
from unetexp.data.collection import Labels
from unetexp.data.label_values.label_checks import interpret
from unetexp.data.label_values.label_map import UNMAPPED, value_table
from unetexp.data.label_values.split_labels import SplitLabels
from unetexp.data.labels import VOID
from unetexp.data.splits.fold_names import is_fold
from unetexp.errors import DataError

_FEW_MASKS = 0.1  # share of the masks in which a stray value lies
_STRAY = 0.02  # share of the pixels that stray values have together


@dataclass(frozen=True)
class StoredValues:
    """What is said about the numbers in the masks of a set, once they are read."""

    label_map: str | None = None
    ignore: str | None = None
    class_names: tuple[str, ...] | None = None
    split_method: str = "folders"
    notes: tuple[str, ...] = ()
    wide: bool = False  # as in collection.py
    refused: str = ""  # why no classes can be made of the masks: their numbers mean nothing then


@dataclass(frozen=True)
class Labelling:
    """What the stored values mean, as far as it can be told."""

    class_names: tuple[str, ...]  # K
    table: npt.NDArray[np.int16]  # (256,) class, VOID or UNMAPPED
    counts: npt.NDArray[np.int64]  # (N, 256) of all samples; 0 where one is not readable
    refused: str = ""  # why the set is not read, or not trained on
    notes: tuple[str, ...] = ()  # what was assumed
    unclear: bool = False  # refused because the values of all masks may be no classes

    def by_class(self) -> npt.NDArray[np.int64]:
        """Pixels (N, K)."""
        classes = range(len(self.class_names))
        return np.stack([self.counts[:, self.table == k].sum(axis=1) for k in classes], axis=1)

    def void(self) -> npt.NDArray[np.int64]:
        """Void pixels (N,)."""
        return np.asarray(self.counts[:, self.table == VOID].sum(axis=1))

    def values_of(self, label: int) -> list[int]:
        """The stored values of a class."""
        return [int(value) for value in np.flatnonzero(self.table == label)]

    @property
    def background(self) -> int:
        """The class of the most pixels."""
        return int(self.by_class().sum(axis=0).argmax())


def labelling_of(
    samples: Sequence[SampleFacts],
    values: StoredValues,
    where: str,
    mask_of: Callable[[int], Labels],
) -> Labelling:
    """The meaning of the values, by the reader's own rules; where it refuses, its message.

    `mask_of` reads the mask (H, W) of a sample again, by its number. At least one sample must be
    readable.
    """
    none = np.zeros(VOID + 1, np.int64)
    counts = np.stack([s.pixels.counts if s.pixels else none for s in samples])
    class_names = values.class_names
    table = value_table(counts.sum(axis=0) > 0, values.label_map, values.ignore)
    refused, notes, unclear = "", tuple[str, ...](), False
    members = _members(samples)
    try:
        meaning = interpret(
            {split: _labels_of(samples, counts, each) for split, each in members.items()},
            class_names,
            where,
            values.label_map,
            values.split_method,
            values.ignore,
            lambda split, index: mask_of(members[split][index]),
            wide=values.wide,
        )
        class_names, table, notes = meaning.class_names, meaning.table, meaning.notes
        refused = "" if meaning.lacking else " ".join(meaning.problems)
        unclear = bool(refused)
    except DataError as error:
        refused = str(error)
    if class_names is None:
        present = [int(k) for k in np.unique(table[counts.sum(axis=0) > 0]) if k not in (VOID, -1)]
        class_names = tuple(map(str, range(max(present, default=0) + 1)))
    return Labelling(class_names, table, counts, refused, notes, unclear)


def _members(samples: Sequence[SampleFacts]) -> Mapping[str, list[int]]:
    """The numbers of the readable samples of each split; train and val, or folds, always."""
    members: dict[str, list[int]] = {}
    for number, sample in enumerate(samples):
        if sample.pixels:
            members.setdefault(sample.split or "train", []).append(number)
    some = next(iter(members.values()))
    if not any(is_fold(split) for split in members):
        members = {"train": some, "val": some, **members}
    return members


def _labels_of(
    samples: Sequence[SampleFacts], counts: npt.NDArray[np.int64], members: Sequence[int]
) -> SplitLabels:
    return SplitLabels(
        [samples[i].name for i in members],
        [str(samples[i].mask) for i in members],
        counts[list(members)].astype(np.int32),
    )


def stray_values(labels: Labelling) -> list[int]:
    """Stored values without a class; without names, those after a gap that few masks hold."""
    pixels = labels.counts.sum(axis=0)
    found = [int(value) for value in np.flatnonzero(pixels)]
    outside = [
        v
        for v in found
        if labels.table[v] == UNMAPPED or len(labels.class_names) <= labels.table[v] < VOID
    ]
    if outside or not labels.refused:
        return outside
    readable = max(int((labels.counts.sum(axis=1) > 0).sum()), 1)
    held = (labels.counts > 0).sum(axis=0)
    classes = [v for v in found if v != VOID]
    gap = next((v for n, v in enumerate(classes) if v != n), VOID + 1)
    after = [v for v in classes if v >= gap]
    rare = [v for v in after if held[v] <= max(1, _FEW_MASKS * readable)]
    few = pixels[rare].sum() <= _STRAY * pixels.sum() and len(rare) < len(classes)
    if few and 2 * len(rare) >= len(after):  # else the others do not make classes either
        return rare
    return []
