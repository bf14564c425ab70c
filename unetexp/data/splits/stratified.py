"""Iterative stratification of units that are never cut: a sample, or all samples of a group."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

_ATTEMPTS = 20


@dataclass(frozen=True)
class Unit:
    """Samples that stay together; `classes` are those in each one's mask."""

    name: str
    names: tuple[str, ...]
    classes: tuple[frozenset[int], ...]

    @property
    def first(self) -> str:
        """A sample that no other unit has."""
        return self.names[0]

    @cached_property
    def images(self) -> Counter[int]:
        """How many of its images show each class."""
        return Counter(label for held in self.classes for label in held)


def best_stratified(
    units: Sequence[Unit], sizes: Mapping[str, int], seed: int
) -> dict[str, list[str]]:
    """The first of some draws in which the fewest splits lack a class, and sizes are nearest.

    Stratification is greedy: in small sets another order can find a place for a class that the
    first order could not.
    """
    best: tuple[tuple[int, int], dict[str, list[Unit]]] | None = None
    present = {label for unit in units for label in unit.images}
    for attempt in range(_ATTEMPTS):
        order = drawn(units, f"{seed}/{attempt}" if attempt else str(seed))
        splits = _Stratification(order, sizes).run()
        lacking = sum(
            len(present - {label for unit in members for label in unit.images})
            for members in splits.values()
        )
        off = sum(abs(_count(members) - sizes[split]) for split, members in splits.items())
        if best is None or (lacking, off) < best[0]:
            best = (lacking, off), splits
        if not lacking and not off:
            break
    assert best is not None
    return {
        split: [name for unit in members for name in unit.names]
        for split, members in best[1].items()
    }


def drawn(units: Sequence[Unit], seed: str) -> list[Unit]:
    """The units in an order that depends on the seed and on their names alone."""
    return sorted(units, key=lambda unit: hashlib.sha256(f"{seed}/{unit.name}".encode()).digest())


def _count(units: Sequence[Unit]) -> int:
    return sum(len(unit.names) for unit in units)


def _images_by_class(units: Iterable[Unit]) -> Counter[int]:
    return Counter(chain.from_iterable(unit.images.elements() for unit in units))


class _Stratification:
    """Sechidis et al. 2011, doi:10.1007/978-3-642-23808-6_10, over units.

    The rarest class that is left goes first, each of its units, the largest first, to the split
    that lacks most of that class. Differs from the paper in that sizes are kept (exactly, where
    every unit is one sample), in that a class with enough units is due at least once in every
    split, and in that no split stays empty.
    """

    def __init__(self, order: Sequence[Unit], sizes: Mapping[str, int]) -> None:
        by_size = sorted(order, key=lambda unit: -len(unit.names))  # stable: drawn order
        self.left = {unit.first: unit for unit in by_size}
        self.splits: dict[str, list[Unit]] = {split: [] for split in sizes}
        self.room = dict(sizes)  # images; below 0 where a group was larger than the room
        self.due = _shares(sizes, order)

    def run(self) -> dict[str, list[Unit]]:
        """Place every unit."""
        waiting = _images_by_class(self.left.values())
        while waiting:
            rarest = min(waiting, key=lambda label: (waiting[label], label))
            for unit in [unit for unit in self.left.values() if rarest in unit.images]:
                due = {split: self.due[split].get(rarest, 0.0) for split in self.room}
                self._place(
                    unit,
                    max(self._open(), key=lambda s: (due[s], self.room[s], s == "train")),
                )
                waiting.subtract(unit.images)
            waiting = +waiting  # without what is at 0
        for unit in list(self.left.values()):  # masks in which everything is void
            self._place(unit, self._open()[0])
        return self.splits

    def _open(self) -> list[str]:
        """The splits with room; only the empty ones, once the units left are needed for them."""
        empty = [split for split, members in self.splits.items() if not members]
        if len(self.left) <= len(empty):
            return empty
        return [split for split, room in self.room.items() if room > 0]

    def _place(self, unit: Unit, split: str) -> None:
        self.splits[split].append(unit)
        del self.left[unit.first]
        self.room[split] -= len(unit.names)
        for label, images in unit.images.items():
            self.due[split][label] -= images


def _shares(sizes: Mapping[str, int], units: Sequence[Unit]) -> dict[str, dict[int, float]]:
    """How many images of each class are due to each split."""
    total = sum(sizes.values())
    images = _images_by_class(units)
    holders = Counter(label for unit in units for label in unit.images)
    order = sorted(sizes, key=lambda split: split != "train")  # stable
    return {
        split: {  # the first unit of a class is due to train, the second to the next split
            label: max(count * sizes[split] / total, float(holders[label] > place))
            for label, count in images.items()
        }
        for place, split in enumerate(order)
    }
