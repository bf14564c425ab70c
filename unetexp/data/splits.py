"""A seeded split of named samples."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from unetexp.errors import DataError


def seeded_split(
    names: Sequence[str], fractions: Mapping[str, float], seed: int
) -> dict[str, list[str]]:
    """`train` and one split for each entry of `fractions` above 0, every name in exactly one.

    A name's place in the draw depends on the seed and on itself alone, so adding images moves
    few of the others. Every split gets at least one; raises DataError where there are too few.
    """
    wanted = {split: fraction for split, fraction in fractions.items() if fraction > 0}
    if len(names) <= len(wanted):
        raise DataError(
            f"{len(names)} images are too few to split into train, {', '.join(wanted)}: "
            f"at least {len(wanted) + 1} are needed. Add images with their masks."
        )
    drawn = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    counts = {split: max(1, round(len(names) * part)) for split, part in wanted.items()}
    while sum(counts.values()) >= len(names):  # rounding up must not eat the train split
        counts[max(counts, key=lambda split: counts[split])] -= 1
    splits: dict[str, list[str]] = {}
    start = 0
    for split, count in counts.items():
        splits[split] = sorted(drawn[start : start + count])
        start += count
    return {"train": sorted(drawn[start:]), **splits}
