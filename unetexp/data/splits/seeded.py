"""A seeded and stratified split of named samples."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from unetexp.errors import DataError

Classes = Mapping[str, AbstractSet[int]]

_ATTEMPTS = 20


def seeded_split(
    names: Sequence[str],
    fractions: Mapping[str, float],
    seed: int,
    classes: Classes | None = None,
) -> dict[str, list[str]]:
    """`train` and one split for each entry of `fractions` above 0, every name in exactly one.

    `classes` are those in each sample's mask. If they differ, the split is stratified: each
    class gets its share of every split. If not, a name's place in the draw depends only on the
    seed and the name, so adding images moves few of the others. The sizes are the same in both
    cases. Every split gets at least one; raises DataError if there are too few.
    """
    sizes = _sizes(len(names), {split: part for split, part in fractions.items() if part > 0})
    if classes is not None and differ(classes):
        splits = _best_stratified(names, sizes, seed, classes)
    else:
        splits = _consecutive(_drawn(names, str(seed)), sizes)
    return {split: sorted(splits[split]) for split in ("train", *sizes)}


def differ(classes: Classes) -> bool:
    """Whether the masks hold different classes: only then a split can be stratified."""
    return len({frozenset(held) for held in classes.values()}) > 1


def _sizes(total: int, wanted: Mapping[str, float]) -> dict[str, int]:
    """How many of `total` names each split gets; train, the last, gets what is left."""
    if total <= len(wanted):
        raise DataError(
            f"{total} images are too few to split into train, {', '.join(wanted)}: "
            f"at least {len(wanted) + 1} are needed. Add images with their masks."
        )
    sizes = {split: max(1, round(total * part)) for split, part in wanted.items()}
    while sum(sizes.values()) >= total:  # rounding up must not empty the train split
        sizes[max(sizes, key=lambda split: sizes[split])] -= 1
    return {**sizes, "train": total - sum(sizes.values())}


def _drawn(names: Sequence[str], seed: str) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())


def _consecutive(drawn: Sequence[str], sizes: Mapping[str, int]) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {}
    start = 0
    for split, size in sizes.items():
        splits[split] = list(drawn[start : start + size])
        start += size
    return splits


def _best_stratified(
    names: Sequence[str], sizes: Mapping[str, int], seed: int, classes: Classes
) -> dict[str, list[str]]:
    """The first of some draws in which the fewest splits lack a class.

    Stratification is greedy: in small sets another order can find a place for a class that the
    first order could not.
    """
    frequency = Counter(label for name in names for label in classes[name])
    best: tuple[int, dict[str, list[str]]] | None = None
    for attempt in range(_ATTEMPTS):
        drawn = _drawn(names, f"{seed}/{attempt}" if attempt else str(seed))
        splits = _stratified(drawn, sizes, classes, frequency)
        lacking = sum(
            len(frequency.keys() - set().union(*(classes[name] for name in members)))
            for members in splits.values()
        )
        if best is None or lacking < best[0]:
            best = lacking, splits
        if not lacking:
            break
    assert best is not None
    return best[1]


def _stratified(
    drawn: Sequence[str], sizes: Mapping[str, int], classes: Classes, frequency: Mapping[int, int]
) -> dict[str, list[str]]:
    """Iterative stratification (Sechidis et al. 2011, doi:10.1007/978-3-642-23808-6_10).

    The rarest class that is left goes first, each of its samples to the split that lacks most of
    that class. Differs from the paper in that sizes are exact, and in that a class with enough
    samples is due at least once in every split.
    """
    splits: dict[str, list[str]] = {split: [] for split in sizes}
    due = _shares(sizes, frequency)
    left, unplaced = dict(frequency), dict.fromkeys(drawn)
    while left:
        rarest = min(left, key=lambda label: (left[label], label))
        for name in [name for name in unplaced if rarest in classes[name]]:
            open_splits = [split for split in sizes if len(splits[split]) < sizes[split]]
            split = max(
                open_splits, key=lambda s: (due[s][rarest], sizes[s] - len(splits[s]), s == "train")
            )
            splits[split].append(name)
            del unplaced[name]
            for label in classes[name]:
                due[split][label] -= 1
                left[label] -= 1
        left = {label: count for label, count in left.items() if count > 0}
    for split, size in sizes.items():  # masks in which everything is void
        while len(splits[split]) < size:
            name = next(iter(unplaced))
            splits[split].append(name)
            del unplaced[name]
    return splits


def _shares(sizes: Mapping[str, int], frequency: Mapping[int, int]) -> dict[str, dict[int, float]]:
    """How many samples of each class are due to each split."""
    total = sum(sizes.values())
    order = ["train", *(split for split in sizes if split != "train")]
    return {
        split: {  # the first sample of a class is due to train, the second to the next split
            label: max(count * sizes[split] / total, float(count > place))
            for label, count in frequency.items()
        }
        for place, split in enumerate(order)
    }
