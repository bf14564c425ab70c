"""A seeded and stratified split of named samples, and a check for missing classes.

K classes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import numpy.typing as npt

from unetexp.data.label_map import setting_without
from unetexp.errors import DataError, listed

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


def coverage_problems(
    holds: Mapping[str, npt.NDArray[np.bool_]],
    class_names: Sequence[str],
    table: npt.NDArray[np.int16],
    method: str,
    *,
    named: bool,
) -> list[str]:
    """A message for train and for val if it lacks classes that occur elsewhere.

    `holds` has for each split which mask (masks, K) holds which class, `table` (256,) the class
    of each stored value; `method` is how the split was made, `named` if there is a classes.txt.
    """
    frequency = np.sum([held.sum(axis=0) for held in holds.values()], axis=0)
    total = sum(len(held) for held in holds.values())
    problems = []
    for split, why in (
        ("train", "It cannot be learnt."),
        ("val", "Validation cannot measure it, and val/miou leaves it out."),
    ):
        lacking = np.flatnonzero((frequency > 0) & ~holds[split].any(axis=0)).tolist()
        if lacking:
            found = [f"{class_names[k]} (in {frequency[k]} of all {total} masks)" for k in lacking]
            problems.append(
                f"no mask of the {split} split holds the class {listed(found)}. {why} "
                + _more_of(split, method, int(frequency[lacking].min()))
                + _left_out(table, lacking, len(class_names), method, named=named)
            )
    return problems


def _more_of(split: str, method: str, masks: int) -> str:
    """How to get masks of a class that `masks` of all hold into `split`."""
    if method == "folders":
        return f"Move images that show it, with their masks, into {split}, or label more of them."
    if masks < 2:
        return "Label more images that show it: train and val need one each."
    size = "larger" if split == "val" else "smaller"
    return (
        f"Label more images that show it, set a {size} data.val_fraction or another data.seed, or "
        "put the images into train and val folders yourself."
    )


def _left_out(
    table: npt.NDArray[np.int16], lacking: list[int], num_classes: int, method: str, *, named: bool
) -> str:
    """How to leave out the classes, if the source has a label map."""
    if num_classes - len(lacking) < 2 or method not in ("folders", "seeded"):
        return ""
    removal = ", and take it out of classes.txt" if named else ""
    return (
        f" To leave it out: {setting_without(table, lacking, num_classes)}{removal}. To merge it "
        "with another class, write the number of that class instead of void."
    )
