"""What the stored values of a set mean, for the rules that ask about classes.

N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unetexp.data.checks.facts import SampleFacts
from unetexp.data.label_values.label_checks import interpret
from unetexp.data.label_values.label_map import value_table
from unetexp.data.label_values.split_labels import SplitLabels
from unetexp.data.labels import VOID
from unetexp.errors import DataError


@dataclass(frozen=True)
class Labelling:
    """What the stored values mean, as far as it can be told."""

    class_names: tuple[str, ...]  # K
    table: npt.NDArray[np.int16]  # (256,) class, VOID or UNMAPPED
    counts: npt.NDArray[np.int64]  # (N, 256) of all samples; 0 where one is not readable
    refused: str = ""  # why the set is not read, or not trained on

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
    class_names: tuple[str, ...] | None,
    label_map: str | None,
    where: str,
) -> Labelling:
    """The meaning of the values, by the reader's own rules; where it refuses, its message."""
    none = np.zeros(VOID + 1, np.int64)
    counts = np.stack([s.pixels.counts if s.pixels else none for s in samples])
    table = value_table(counts.sum(axis=0) > 0, label_map)
    refused = ""
    try:
        meaning = interpret(_split_labels(samples, counts), class_names, where, label_map)
        class_names, table = meaning.class_names, meaning.table
        refused = " ".join(p for p in meaning.problems if "no mask of the" not in p)
    except DataError as error:
        refused = str(error)
    except KeyError:  # a split is empty of readable samples
        pass
    if class_names is None:
        present = [int(k) for k in np.unique(table[counts.sum(axis=0) > 0]) if k not in (VOID, -1)]
        class_names = tuple(map(str, range(max(present, default=0) + 1)))
    return Labelling(class_names, table, counts, refused)


def _split_labels(
    samples: Sequence[SampleFacts], counts: npt.NDArray[np.int64]
) -> Mapping[str, SplitLabels]:
    splits: dict[str, SplitLabels] = {}
    for split in dict.fromkeys(s.split or "train" for s in samples):
        members = [i for i, s in enumerate(samples) if (s.split or "train") == split and s.pixels]
        if members:
            splits[split] = SplitLabels(
                [samples[i].name for i in members],
                [str(samples[i].mask) for i in members],
                counts[members].astype(np.int32),
            )
    for split in ("train", "val"):
        if split not in splits:
            splits[split] = next(iter(splits.values()))
    return splits
