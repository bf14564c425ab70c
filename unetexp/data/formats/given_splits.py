"""Splits that a data set brings, and what is drawn from its train split where it lacks one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from unetexp.data.files.file_sample import FileSample, Listing


def given_splits(
    root: Path,
    splits: Mapping[str, Sequence[FileSample]],
    class_names: tuple[str, ...] | None,
    *,
    test_fraction: float,
    method: str,
    notes: Sequence[str] = (),
) -> Listing:
    """The listing of `splits`, which hold `train`.

    A missing val is drawn from train, and a missing test too where `test_fraction` is above 0.
    """
    lacking = [
        name
        for name, drawn in (("val", True), ("test", test_fraction > 0))
        if drawn and name not in splits
    ]
    if not lacking:
        return Listing(root, dict(splits), (), class_names, method, tuple(notes))
    kept = {name: members for name, members in splits.items() if name != "train"}
    note = f"There is no {' and no '.join(lacking)} split: drawn from the train split by the seed."
    return Listing(
        root,
        kept,
        splits["train"],
        class_names,
        f"seeded, the others: {method}" if kept else "seeded",
        (*notes, note) if kept else tuple(notes),
    )
