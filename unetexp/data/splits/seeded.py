"""A seeded and stratified split of named samples, whose groups stay whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from unetexp.data.splits.stratified import Unit, best_stratified, drawn
from unetexp.errors import DataError

Classes = Mapping[str, AbstractSet[int]]
Groups = Mapping[str, str]  # the group of each sample; "": none but the sample itself

WITHOUT_GROUPS = "Or let images split without these groups: --set data.group_pattern=null."


def seeded_split(
    names: Sequence[str],
    fractions: Mapping[str, float],
    seed: int,
    classes: Classes | None = None,
    groups: Groups | None = None,
    remedy: str = WITHOUT_GROUPS,
) -> dict[str, list[str]]:
    """`train` and one split for each entry of `fractions` above 0, every name in exactly one.

    `classes` are those in each sample's mask. If they differ, the split is stratified: each
    class gets its share of every split. If not, the place of a name (of its group, where it has
    one) in the draw depends only on the seed and the name, so adding images moves few of the
    others. A group is in one split only, and sizes are then as near as groups allow; without
    groups they are exact. Every split gets at least one; raises DataError if there are too few,
    with `remedy`, what else helps where groups are the reason.
    """
    units = units_of(names, classes, groups)
    wanted = {split: part for split, part in fractions.items() if part > 0}
    _require_enough(units, wanted, remedy)
    sizes = _sizes(len(names), wanted)
    if classes is not None and differ(classes):
        splits = best_stratified(units, sizes, seed)
    else:
        splits = _consecutive(drawn(units, str(seed)), sizes)
    return {split: sorted(splits[split]) for split in ("train", *sizes)}


def differ(classes: Classes) -> bool:
    """Whether the masks hold different classes: only then a split can be stratified."""
    return len({frozenset(held) for held in classes.values()}) > 1


def units_of(names: Sequence[str], classes: Classes | None, groups: Groups | None) -> list[Unit]:
    """What is never cut: each group's samples, and each sample without a group."""
    members: dict[tuple[bool, str], list[str]] = {}
    for name in names:
        group = groups.get(name, "") if groups else ""
        members.setdefault((bool(group), group or name), []).append(name)
    held = classes or {}
    return [
        Unit(key, tuple(sorted(each)), tuple(frozenset(held.get(n, ())) for n in sorted(each)))
        for (_, key), each in members.items()
    ]


def _require_enough(units: Sequence[Unit], wanted: Mapping[str, float], remedy: str) -> None:
    if len(units) > len(wanted):
        return
    grouped = any(len(unit.names) > 1 for unit in units)
    what = "groups" if grouped else "images"
    hint = "Add images with their masks."
    if grouped:
        hint = "A group is never cut: add images of other groups"
        if "test" in wanted and len(units) == len(wanted):
            hint += ", draw no test split (--set data.test_fraction=0)"
        hint += f". {remedy}".rstrip() if remedy else "."
    raise DataError(
        f"{len(units)} {what} are too few to split into train, {', '.join(wanted)}: "
        f"at least {len(wanted) + 1} are needed. {hint}"
    )


def _sizes(total: int, wanted: Mapping[str, float]) -> dict[str, int]:
    """How many of `total` names each split gets; train, the last, gets what is left."""
    sizes = {split: max(1, round(total * part)) for split, part in wanted.items()}
    while sum(sizes.values()) >= total:  # rounding up must not empty the train split
        sizes[max(sizes, key=lambda split: sizes[split])] -= 1
    return {**sizes, "train": total - sum(sizes.values())}


def _consecutive(units: Sequence[Unit], sizes: Mapping[str, int]) -> dict[str, list[str]]:
    """Units in their order into the first split, then the next one; the last gets the rest.

    A unit is passed over where it would not bring the split nearer to its size.
    """
    left, splits = list(units), {}
    *first, last = sizes
    for number, split in enumerate(first):
        taken: list[Unit] = []
        count, others = 0, len(sizes) - number - 1
        for unit in left:
            if count == sizes[split] or len(left) - len(taken) == others:
                break
            if abs(count + len(unit.names) - sizes[split]) < abs(count - sizes[split]):
                taken.append(unit)
                count += len(unit.names)
        taken = taken or [min(left, key=lambda unit: len(unit.names))]
        gone = {unit.first for unit in taken}
        left = [unit for unit in left if unit.first not in gone]
        splits[split] = [name for unit in taken for name in unit.names]
    splits[last] = [name for unit in left for name in unit.names]
    return splits
