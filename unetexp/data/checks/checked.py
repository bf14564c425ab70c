"""The whole check of a source: find, examine, judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from unetexp.data.checks.examine import Item, examine, items_of_files, items_of_pairs
from unetexp.data.checks.facts import SampleFacts
from unetexp.data.checks.finding import Finding, Offender, Severity, ranked
from unetexp.data.checks.labelling import Labelling, labelling_of
from unetexp.data.checks.loose_pairs import loose_pairs
from unetexp.data.checks.rules.duplicates import duplicate_findings, group_findings
from unetexp.data.checks.rules.files import file_findings, unpaired_finding
from unetexp.data.checks.rules.labels import label_findings
from unetexp.data.checks.rules.pictures import object_findings, picture_findings
from unetexp.data.collection import Progress
from unetexp.data.files.file_sample import FileSample, Listing
from unetexp.data.files.pages import pages_as_samples
from unetexp.data.files.sample_loading import SampleLoader
from unetexp.data.label_values.label_map import UNMAPPED, value_table
from unetexp.data.labels import VOID
from unetexp.data.sources.file_source import FileSource
from unetexp.errors import DataError, listed


@dataclass(frozen=True)
class Checked:
    """A source that was checked."""

    where: str
    samples: tuple[SampleFacts, ...]
    items: tuple[Item, ...]  # beside the samples: how to decode them again
    findings: tuple[Finding, ...]
    class_names: tuple[str, ...] = ()
    class_shares: tuple[float, ...] = ()
    notes: tuple[str, ...] = field(default=())  # what was assumed
    root: Path | None = None  # None: no files

    def summary(self) -> dict[str, Any]:
        """JSON-safe values."""
        splits: dict[str, int] = {}
        for sample in self.samples:
            splits[sample.split] = splits.get(sample.split, 0) + 1
        return {
            "source": self.where,
            "pairs": len(self.samples),
            "splits": splits,
            "classes": dict(zip(self.class_names, self.class_shares, strict=True)),
            "notes": list(self.notes),
        }


def check_source(source: Any, on_progress: Progress | None = None) -> Checked:
    """Check a source of any kind. Raises DataError where there is nothing to examine."""
    if not isinstance(source, FileSource):
        collection = source.collect(on_progress)
        items = list(items_of_pairs(collection.pairs()))
        return _judged(
            collection.where, None, items, collection.class_names, collection.label_map, (),
            examine(items, on_progress), (),
        )  # fmt: skip
    listing, found = _listing(source, on_progress)
    listing = source.grouped(listing)
    splits: dict[str, Sequence[FileSample]] = dict(listing.splits)
    if listing.unsplit:
        splits[""] = listing.unsplit
    loader = SampleLoader(
        source.reader(), source.input_form(), listing.splits.get("train", listing.unsplit)
    )
    items = list(items_of_files(splits, loader))
    samples = examine(items, on_progress)
    found += _orientation(loader, samples)
    samples = _with_drawn_split(source, listing, samples)
    return _judged(
        str(listing.root), listing.root, items, listing.class_names, source.label_map,
        listing.notes, samples, found, getattr(source, "resize", None),
    )  # fmt: skip


def judge(
    samples: Sequence[SampleFacts], labels: Labelling, resize: object = None
) -> list[Finding]:
    """All findings that follow from the facts."""
    return [
        *file_findings(samples),
        *label_findings(samples, labels),
        *duplicate_findings(samples),
        *group_findings(samples),
        *picture_findings(samples),
        *object_findings(samples, labels, resize),
    ]


def _judged(
    where: str,
    root: Path | None,
    items: Sequence[Item],
    class_names: tuple[str, ...] | None,
    label_map: str | None,
    notes: Sequence[str],
    samples: Sequence[SampleFacts],
    found: Sequence[Finding],
    resize: object = None,
) -> Checked:
    if not any(sample.pixels for sample in samples):
        findings = [*found, *file_findings(samples)]
        return Checked(where, tuple(samples), tuple(items), tuple(ranked(findings)), root=root)
    labels = labelling_of(samples, class_names, label_map, where)
    pixels = labels.by_class().sum(axis=0)
    return Checked(
        where,
        tuple(samples),
        tuple(items),
        tuple(ranked([*found, *judge(samples, labels, resize)])),
        labels.class_names,
        tuple((pixels / max(pixels.sum(), 1)).tolist()),
        tuple(notes),
        root,
    )


def _listing(source: FileSource, on_progress: Progress | None) -> tuple[Listing, list[Finding]]:
    """The listing, or, where the source refuses, what can be paired all the same."""
    try:
        listing = source.listing(on_progress)
        if source.input_form().pages == "samples":
            listing = pages_as_samples(listing)
        return listing, []
    except DataError as error:
        place = getattr(source, "root", None)
        if place is None or not Path(place).is_dir():
            raise
        root, message = Path(place), str(error)
        pairs = loose_pairs(root)
        if not any(pairs.splits.values()):
            raise
    found = []
    if pairs.images or pairs.masks:
        found.append(unpaired_finding(pairs.images, pairs.masks, message))
    else:
        found.append(_refused(message, pairs.ambiguous))
    names = _class_names(root)
    unsplit = pairs.splits.get("", [])
    splits = {name: members for name, members in pairs.splits.items() if name}
    note = "The folder is refused as it is; what follows was found by pairing names loosely."
    return Listing(root, splits, unsplit, names, notes=(note,)), found


def _orientation(loader: SampleLoader, samples: Sequence[SampleFacts]) -> list[Finding]:
    """The finding about masks that lie on the frame as stored of images that are turned."""
    try:
        loader.result()
    except DataError as error:
        turned = [(i, s) for i, s in enumerate(samples) if s.orientation != 1]
        return [
            Finding(
                "masks-on-stored-frame",
                Severity.error,
                f"The masks of {len(turned)} images with an EXIF orientation tag were drawn on the "
                "images as stored, not on the upright ones.",
                "The masks lie beside the objects: one such set scored 0.30 for 0.98, and only a "
                "picture shows why.",
                str(error),
                files=tuple(s.mask_label for _, s in turned),
                numbers={"images": len(turned)},
                offenders=tuple(Offender(i, s.name) for i, s in turned),
            )
        ]
    return []


def _refused(message: str, files: Sequence[str]) -> Finding:
    return Finding(
        "layout",
        Severity.error,
        f"The folder is refused{f': {listed(files, 3)}' if files else ''}.",
        "Nothing can be trained on it until this is mended.",
        message,
        files=tuple(files),
    )


def _class_names(root: Path) -> tuple[str, ...] | None:
    try:
        lines = (root / "classes.txt").read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return tuple(line.strip() for line in lines if line.strip()) or None


def _with_drawn_split(
    source: FileSource, listing: Listing, samples: Sequence[SampleFacts]
) -> list[SampleFacts]:
    """Samples without a split get the one that the source would draw."""
    readable = {s.name: s for s in samples if not s.split and s.pixels is not None}
    if not readable:
        return list(samples)
    members = [each for each in listing.unsplit if each.name in readable]
    classes = _classes(source, readable)
    try:
        drawn: Mapping[str, Sequence[str]] = source.drawn_split(listing, members, classes)
    except DataError:
        return list(samples)  # too few
    place = {name: split for split, names in drawn.items() for name in names}
    return [s if s.split else replace(s, split=place.get(s.name, "")) for s in samples]


def _classes(source: FileSource, readable: Mapping[str, SampleFacts]) -> dict[str, frozenset[int]]:
    counts = {name: s.pixels.counts > 0 for name, s in readable.items() if s.pixels}
    table = value_table(np.any(list(counts.values()), axis=0), source.label_map, source.ignore)
    return {
        name: frozenset(table[np.flatnonzero(held)].tolist()) - {VOID, UNMAPPED}
        for name, held in counts.items()
    }
