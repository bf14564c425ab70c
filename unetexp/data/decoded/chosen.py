"""Some of the samples of a split, as a split of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unetexp.data.decoded.sample import Sample, Samples, original_shapes


@dataclass(frozen=True)
class ChosenSamples:
    """The samples of a split at some indices, in their order."""

    split: Samples
    indices: Sequence[int]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.split.names[index] for index in self.indices)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        return tuple(self.split.shapes[index] for index in self.indices)

    @property
    def original_shapes(self) -> tuple[tuple[int, int], ...]:
        shapes = original_shapes(self.split)
        return tuple(shapes[index] for index in self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.split[self.indices[index]]
