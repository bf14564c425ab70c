"""Splits that the data comes with: what they lack, what they overrule, groups that they cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from unetexp.data.files.file_sample import FileSample, Listing

_SHOWN = 3


def given_splits(
    root: Path,
    splits: Mapping[str, Sequence[FileSample]],
    class_names: tuple[str, ...] | None,
    *,
    test_fraction: float,
    method: str,
    notes: Sequence[str] = (),
) -> Listing:
    """The listing of `splits`, which hold `train`, or all samples as the split "".

    A missing val is drawn from train, and a missing test too where `test_fraction` is above 0.
    """
    if "" in splits:
        return Listing(root, {}, splits[""], class_names, "seeded", tuple(notes))
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


def pooled(listing: Listing) -> Listing:
    """The listing with its train and val among the unsplit samples, to be divided into folds.

    Names that occur in both get the split in front.
    """
    given = [name for name in ("train", "val") if name in listing.splits]
    if not given:
        return listing
    members = [("", each) for each in listing.unsplit]
    members += [(name, each) for name in given for each in listing.splits[name]]
    if len({each.name for _, each in members}) < len(members):
        members = [
            (name, replace(each, name=f"{name}/{each.name}") if name else each)
            for name, each in members
        ]
    rest = {name: each for name, each in listing.splits.items() if name not in given}
    method = "seeded, given test" if rest else "seeded"
    return replace(listing, unsplit=[each for _, each in members], splits=rest, method=method)


def settings_without_effect(
    settings: Mapping[str, object], given: Sequence[str], folds: int | None
) -> tuple[str, ...]:
    """A note that these settings, which the user changed, do nothing."""
    if not settings:
        return ()
    named = ", ".join(f"data.{name} ({value})" for name, value in settings.items())
    why = f"the data comes with its own splits ({', '.join(given)})" if given else ""
    if folds:
        why = f"data.folds divides all images outside test into {folds} folds"
        if "test_fraction" in settings:
            why += ", and the data comes with its own test split"
    return (f"{named}: without effect, because {why}.",)


def cut_groups(splits: Mapping[str, Sequence[FileSample]]) -> tuple[str, ...]:
    """A note if splits that were given share groups, with counts."""
    counts: dict[str, dict[str, int]] = {}
    for split, members in splits.items():
        for sample in members:
            if sample.group:
                held = counts.setdefault(sample.group, {})
                held[split] = held.get(split, 0) + 1
    cut = {group: held for group, held in counts.items() if len(held) > 1}
    if not cut:
        return ()
    examples = "; ".join(
        f"{group}: {', '.join(f'{images} in {split}' for split, images in held.items())}"
        for group, held in list(cut.items())[:_SHOWN]
    )
    images = sum(sum(held.values()) for held in cut.values())
    return (
        f"{len(cut)} of the {len(counts)} groups are in more than one of the given splits, "
        f"{images} images of them ({examples}{'; ...' if len(cut) > _SHOWN else ''}): images of "
        "one group resemble each other, and metrics will look too good. Move each group into "
        "one split.",
    )
