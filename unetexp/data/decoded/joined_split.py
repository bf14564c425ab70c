"""Several splits as one, and a split made again from what is told of it in words."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
from torch import Tensor

from unetexp.data.collection import Labels, RawImage
from unetexp.data.decoded.class_places import ClassPlaces
from unetexp.data.decoded.sample import Sample
from unetexp.data.decoded.split import DecoderOf, Split


class JoinedSplit(Split):
    """Several splits in one sequence, in their order: what k-1 of k folds make."""

    def __init__(self, parts: Sequence[Split]) -> None:
        self.parts = tuple(parts)
        self.names = tuple(chain.from_iterable(part.names for part in parts))
        self.shapes = tuple(chain.from_iterable(part.shapes for part in parts))
        self.groups = tuple(chain.from_iterable(part.groups for part in parts))
        self.original_shapes = tuple(chain.from_iterable(part.original_shapes for part in parts))
        self.class_pixels = np.sum([part.class_pixels for part in parts], axis=0)
        self.void_pixels = sum(part.void_pixels for part in parts)
        self.channels, self._bits = parts[0].channels, parts[0]._bits
        self._name = " + ".join(part._name for part in parts)
        self._ends = list(accumulate(map(len, parts)))

    def __reduce__(self) -> tuple[Any, ...]:
        return JoinedSplit, (self.parts,)

    def tree(self) -> dict[str, Any]:
        """As of a split."""
        return {"parts": [part.tree() for part in self.parts]}

    def __getitem__(self, index: int) -> Sample:
        part, index = self._place_of(index)
        return part[index]

    def original_mask(self, index: int) -> Tensor:
        """As of a split."""
        part, index = self._place_of(index)
        return part.original_mask(index)

    def image_bytes(self, index: int) -> int:
        """As of a split."""
        part, index = self._place_of(index)
        return part.image_bytes(index)

    def window(
        self,
        index: int,
        top: int,
        left: int,
        height: int,
        width: int,
        into: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As of a split."""
        part, index = self._place_of(index)
        return part.window(index, top, left, height, width, into)

    def stored(self, index: int) -> tuple[RawImage, Labels]:
        """As of a split."""
        part, index = self._place_of(index)
        return part.stored(index)

    def places_beside(self, common: int) -> ClassPlaces:
        """As of a split."""
        return ClassPlaces.joined([part.places_beside(common) for part in self.parts])

    def _place_of(self, index: int) -> tuple[Split, int]:
        index = self._checked(index)
        part = self.parts[number := bisect_right(self._ends, index)]
        return part, index - self._ends[number] + len(part)


def split_of_tree(tree: Mapping[str, Any], decoder_of: DecoderOf | None = None) -> Split:
    """The split that a `tree` tells of, in one part or several; see `Dataset.of_tree`."""
    if "parts" in tree:
        return JoinedSplit([split_of_tree(part, decoder_of) for part in tree["parts"]])
    return Split.of_tree(tree, decoder_of)
