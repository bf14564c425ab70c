"""Findings about images that occur more than once, and about groups that span splits."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from unetexp.data.checks.copies.candidates import searches_cuts
from unetexp.data.checks.copies.search import MOST_COMPARED, Alike, alike_pairs, grouped
from unetexp.data.checks.facts import PixelFacts, SampleFacts
from unetexp.data.checks.finding import Finding, Offender, Severity
from unetexp.errors import listed

_LEAK = (
    "Images that were trained on are measured again: a model that learns them by heart scores "
    "there, so that the {splits} figures are too good, and the sweep chooses for it."
)
_WEIGHT = "They count several times in training and in the figures, and intervals are too narrow."
_SUBJECT = re.compile(r"^(.*?[A-Za-z]+[-_]?\d+)[-_.].*\d")
_GROUPED = 0.5  # share of the names that such a pattern must fit
_KNOWN = re.compile(
    r"(patient|subject|case|volume|vol|scan|seq|sequence|video|clip|site|slide|study|pat|sub)"
    r"[-_]?\d+$",
    re.IGNORECASE,
)

Group = list[int]


def duplicate_findings(
    samples: Sequence[SampleFacts], most_compared: int = MOST_COMPARED
) -> Iterator[Finding]:
    """Exact copies, conflicting masks, near copies, neighbouring frames.

    `most_compared` pairs at most, the likeliest first, are laid over each other.
    """
    usable = {i: s.pixels for i, s in enumerate(samples) if s.pixels and not s.pixels.constant}
    by_content: dict[bytes, Group] = defaultdict(list)
    for number, pixels in usable.items():
        by_content[pixels.image_digest].append(number)
    exact = [group for group in by_content.values() if len(group) > 1]
    yield from _exact(samples, exact)
    yield from _conflicts(samples, usable, exact)
    chosen = [group[0] for group in by_content.values()]
    alike = near_copies(samples, chosen, most_compared)
    if not searches_cuts(len(chosen)):
        yield _cuts_not_searched(len(chosen))
    yield from _near(samples, [pair for pair in alike if not pair.frames])
    yield from _frames(samples, [pair for pair in alike if pair.frames])


def near_copies(
    samples: Sequence[SampleFacts], chosen: Sequence[int], most_compared: int = MOST_COMPARED
) -> list[Alike]:
    """Pairs that are alike among the samples `chosen`, one of each set of exact copies."""
    kept = [(i, pixels) for i in chosen if (pixels := samples[i].pixels) is not None]
    kept = [(i, pixels) for i, pixels in kept if pixels.thumb.any()]
    if len(kept) < 2:
        return []
    names = [samples[i].name for i, _ in kept]
    thumbs = np.stack([pixels.thumb for _, pixels in kept])
    found = alike_pairs(thumbs, names, [samples[i].split for i, _ in kept], most_compared)
    index = [i for i, _ in kept]
    return [
        Alike(index[pair.first], index[pair.second], pair.score, pair.how, pair.frames)
        for pair in found
    ]


def _cuts_not_searched(count: int) -> Finding:
    return Finding(
        "crops-not-searched",
        Severity.note,
        f"Among {count} different images only whole ones were compared: copies after saving "
        "again, turning, mirroring and brightening are found, those that were cut are not.",
        "It would take too long. An image in train that is a part of one in val makes the figures "
        "too good.",
        "Check parts of the set on their own if cut copies are likely.",
        numbers={"images": count},
    )


def group_findings(samples: Sequence[SampleFacts]) -> Iterator[Finding]:
    """Groups that are given, or that the names suggest, in more than one split."""
    given: dict[str, Group] = defaultdict(list)
    for number, sample in enumerate(samples):
        if sample.group:
            given[sample.group].append(number)
    torn = _across(samples, given.values())
    if torn:
        yield _group_finding(samples, torn, "group-leak", Severity.error, "group", len(given))
    if given:
        return
    suspected = suspected_groups([sample.name for sample in samples])
    torn = _across(samples, suspected.values())
    if torn:
        code = "suspected-group-leak"
        yield _group_finding(samples, torn, code, Severity.warning, "name", len(suspected))


def suspected_groups(names: Sequence[str]) -> Mapping[str, Group]:
    """What the names suggest: `patient12_slice03` belongs to `patient12`; empty if nothing."""
    groups: dict[str, Group] = defaultdict(list)
    for number, name in enumerate(names):
        found = _SUBJECT.match(name)
        if found:
            groups[found[1]].append(number)
    several = {key: members for key, members in groups.items() if len(members) > 1}
    fitting = sum(map(len, several.values()))
    known = any(_KNOWN.search(key) for key in several)
    if len(groups) < 2 or (fitting < _GROUPED * len(names) and not known):
        return {}
    return several


def _across(samples: Sequence[SampleFacts], groups: Iterable[Group]) -> list[Group]:
    return [group for group in groups if len({samples[i].split for i in group}) > 1]


def _files(samples: Sequence[SampleFacts], groups: Sequence[Group]) -> tuple[str, ...]:
    return tuple(samples[i].label for group in groups for i in group)


def _named_groups(
    samples: Sequence[SampleFacts], groups: Sequence[Group]
) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(samples[i].label for i in group) for group in groups)


def _drawn(
    samples: Sequence[SampleFacts], groups: Sequence[Group], how: str
) -> tuple[Offender, ...]:
    return tuple(
        Offender(i, f"group {number}, {samples[i].split or 'unsplit'}: {samples[i].name}{how}")
        for number, group in enumerate(groups, 1)
        for i in group
    )


def _leaked(samples: Sequence[SampleFacts], groups: Sequence[Group]) -> dict[str, int]:
    """By split, how many of its samples have a copy in train."""
    counts: dict[str, int] = defaultdict(int)
    for group in groups:
        if any(samples[i].split == "train" for i in group):
            for i in group:
                if samples[i].split != "train":
                    counts[samples[i].split] += 1
    return dict(counts)


def _shares(samples: Sequence[SampleFacts], leaked: Mapping[str, int]) -> str:
    totals: dict[str, int] = defaultdict(int)
    for sample in samples:
        totals[sample.split] += 1
    return ", ".join(
        f"{count} of {totals[split]} images of {split} ({count / totals[split]:.0%})"
        for split, count in leaked.items()
    )


def _exact(samples: Sequence[SampleFacts], groups: Sequence[Group]) -> Iterator[Finding]:
    torn = _across(samples, groups)
    within = [group for group in groups if group not in torn]
    if torn:
        leaked = _leaked(samples, torn)
        yield Finding(
            "duplicates-across-splits",
            Severity.error,
            f"{len(torn)} images lie in more than one split, equal in every pixel: "
            f"{listed(_files(samples, torn), 2)}."
            + (f" {_shares(samples, leaked)} are in train." if leaked else ""),
            _LEAK.format(splits=" and ".join(leaked) or "held-out"),
            "Keep each in one split only. --fix DIR keeps the train side and drops it from val and "
            "test.",
            files=_files(samples, torn),
            numbers={"groups": len(torn), "leaked": leaked},
            groups=_named_groups(samples, torn),
            offenders=_drawn(samples, torn, ""),
        )
    if within:
        yield Finding(
            "duplicates",
            Severity.warning,
            f"{len(within)} images occur more than once in their split, equal in every pixel: "
            f"{listed(_files(samples, within), 2)}.",
            _WEIGHT,
            "Keep one of each.",
            files=_files(samples, within),
            numbers={"groups": len(within), "images": sum(map(len, within))},
            groups=_named_groups(samples, within),
            offenders=_drawn(samples, within, ""),
        )


def _conflicts(
    samples: Sequence[SampleFacts], pixels: Mapping[int, PixelFacts], exact: Sequence[Group]
) -> Iterator[Finding]:
    found = [group for group in exact if len({pixels[i].mask_digest for i in group}) > 1]
    if found:
        yield Finding(
            "conflicting-duplicates",
            Severity.error,
            f"{len(found)} images occur more than once with different masks: "
            f"{listed(_files(samples, found), 2)}.",
            "One image cannot have two truths: no model can reach full score on both, and the loss "
            "pulls both ways.",
            "Look at the masks in the pictures and keep the right one.",
            files=_files(samples, found),
            numbers={"groups": len(found)},
            groups=_named_groups(samples, found),
            offenders=_drawn(samples, found, ""),
        )


def _near(samples: Sequence[SampleFacts], pairs: Sequence[Alike]) -> Iterator[Finding]:
    how = {(pair.first, pair.second): f"{pair.how}, {pair.score:.2f}" for pair in pairs}
    groups = grouped(list(how))
    torn = _across(samples, groups)
    within = [group for group in groups if group not in torn]
    for code, severity, members in (
        ("near-duplicates-across-splits", Severity.error, torn),
        ("near-duplicates", Severity.warning, within),
    ):
        if not members:
            continue
        leaked = _leaked(samples, members)
        inside = {i for group in members for i in group}
        ways = [
            f"{samples[i].label} and {samples[j].label} ({way})"
            for (i, j), way in how.items()
            if i in inside
        ]
        yield Finding(
            code,
            severity,
            f"{len(members)} groups of images that show the same thing after saving again, "
            f"turning, mirroring, cutting or brightening"
            f"{' lie in more than one split' if leaked or members is torn else ''}: "
            f"{listed(ways, 2)}."
            + (f" {_shares(samples, leaked)} are like train." if leaked else ""),
            _LEAK.format(splits=" and ".join(leaked) or "held-out") if members is torn else _WEIGHT,
            "Look at the pictures. Put the images of a group into one split, or keep one of each.",
            files=_files(samples, members),
            numbers={"groups": len(members), "leaked": leaked, "pairs": len(ways)},
            groups=_named_groups(samples, members),
            offenders=_drawn(samples, members, ""),
        )


def _frames(samples: Sequence[SampleFacts], pairs: Sequence[Alike]) -> Iterator[Finding]:
    groups = grouped([(p.first, p.second) for p in pairs if _torn(samples, p)])
    if not groups:
        return
    leaked = _leaked(samples, groups)
    yield Finding(
        "neighbouring-frames-across-splits",
        Severity.warning,
        f"Neighbouring frames or slices, almost alike, lie in different splits: "
        f"{listed(_files(samples, groups), 2)}."
        + (f" {_shares(samples, leaked)} are next to train." if leaked else ""),
        "A model is measured on what it has nearly seen: the figure says little about another "
        "video, volume or patient.",
        "Split by video, volume or patient, not by frame.",
        files=_files(samples, groups),
        numbers={"groups": len(groups), "leaked": leaked},
        groups=_named_groups(samples, groups),
        offenders=_drawn(samples, groups, ""),
    )


def _torn(samples: Sequence[SampleFacts], pair: Alike) -> bool:
    return samples[pair.first].split != samples[pair.second].split


def _group_finding(
    samples: Sequence[SampleFacts],
    torn: Sequence[Group],
    code: str,
    severity: Severity,
    by: str,
    total: int,
) -> Finding:
    leaked = _leaked(samples, torn)
    said = "By their names, images of one subject" if by == "name" else "Images of one group"
    return Finding(
        code,
        severity,
        f"{said} lie in more than one split, in {len(torn)} of {total} groups: "
        f"{listed(_files(samples, torn[:1]), 3)}."
        + (f" {_shares(samples, leaked)} have relatives in train." if leaked else ""),
        "Images of one subject look alike in what does not matter: the figure is that of a known "
        "subject, and a new one scores lower.",
        "Split by group, so that all images of a subject lie in one split.",
        files=_files(samples, torn),
        numbers={"groups": len(torn), "leaked": leaked},
        groups=_named_groups(samples, torn),
    )
