"""Findings about what the masks hold: wrong values, void, balance, classes that splits lack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from unetexp.data.checks.examine import REFUSED_MASK
from unetexp.data.checks.facts import SampleFacts
from unetexp.data.checks.finding import Finding, Offender, Severity
from unetexp.data.checks.labelling import Labelling
from unetexp.data.label_values.label_map import UNMAPPED
from unetexp.data.label_values.remedies import remedies
from unetexp.data.labels import VOID
from unetexp.errors import listed

_MUCH_VOID, _MOSTLY_VOID = 0.2, 0.5
_RARE, _VERY_RARE = 0.01, 0.002  # share of the labelled pixels
_FEW_MASKS = 0.1  # share of the masks in which a stray value lies
_STRAY = 0.02  # share of the pixels that stray values have together
_NEAR_EMPTY = 0.01  # share of the median foreground
_TINY_SHARE = 0.002  # of the image


def label_findings(samples: Sequence[SampleFacts], labels: Labelling) -> Iterator[Finding]:
    """All of them."""
    yield from _refused_masks(samples)
    yield from _wrong_values(samples, labels)
    yield from _void(samples, labels)
    yield from _balance(labels)
    yield from _missing(samples, labels)
    yield from _empty(samples, labels)


def _refused_masks(samples: Sequence[SampleFacts]) -> Iterator[Finding]:
    found = [s for s in samples if s.fault == REFUSED_MASK]
    if found:
        yield Finding(
            "wrong-labels",
            Severity.error,
            f"{len(found)} masks hold what is no class number: "
            f"{listed([s.mask_label for s in found], 3)}.",
            "The reader stops at the first.",
            found[0].message,
            files=tuple(s.mask_label for s in found),
            numbers={"masks": len(found)},
        )


def _wrong_values(samples: Sequence[SampleFacts], labels: Labelling) -> Iterator[Finding]:
    pixels = labels.counts.sum(axis=0)
    stray = stray_values(labels)
    if not stray and not labels.refused:
        return
    holding = np.flatnonzero(labels.counts[:, stray].any(axis=1)).tolist() if stray else []
    share = float(pixels[stray].sum() / max(pixels.sum(), 1)) if stray else 0.0
    title = (
        f"{len(holding)} masks hold values that belong to no class, {listed(stray)} "
        f"({share:.2%} of all pixels): {listed([samples[i].mask_label for i in holding], 3)}."
        if stray
        else "The values in the masks do not make classes to train on."
    )
    yield Finding(
        "wrong-labels",
        Severity.error,
        title,
        "Each value is a class: stray ones become classes of their own that nothing predicts, and "
        "pull the mean IoU towards 0, or stop the reader.",
        labels.refused or remedies(pixels, None) or "Correct these masks.",
        files=tuple(samples[i].mask_label for i in holding),
        numbers={"values": stray, "masks": len(holding), "share": share},
        offenders=tuple(
            Offender(
                i,
                f"{samples[i].name}: " + listed([v for v in stray if labels.counts[i, v]]),
                values=tuple(v for v in stray if labels.counts[i, v]),
            )
            for i in holding
        ),
    )


def stray_values(labels: Labelling) -> list[int]:
    """Stored values without a class; without names, those after a gap that few masks hold."""
    pixels = labels.counts.sum(axis=0)
    found = [int(value) for value in np.flatnonzero(pixels)]
    outside = [
        v
        for v in found
        if labels.table[v] == UNMAPPED or len(labels.class_names) <= labels.table[v] < VOID
    ]
    if outside or not labels.refused:
        return outside
    readable = max(int((labels.counts.sum(axis=1) > 0).sum()), 1)
    held = (labels.counts > 0).sum(axis=0)
    classes = [v for v in found if v != VOID]
    gap = next((v for n, v in enumerate(classes) if v != n), VOID + 1)
    after = [v for v in classes if v >= gap]
    rare = [v for v in after if held[v] <= max(1, _FEW_MASKS * readable)]
    if pixels[rare].sum() <= _STRAY * pixels.sum() and len(rare) < len(classes):
        return rare
    return []


def _void(samples: Sequence[SampleFacts], labels: Labelling) -> Iterator[Finding]:
    void, totals = labels.void(), labels.counts.sum(axis=1)
    if not totals.sum():
        return
    share = float(void.sum() / totals.sum())
    full = np.flatnonzero((totals > 0) & (void == totals)).tolist()
    heavy = np.flatnonzero((totals > 0) & (void > _MOSTLY_VOID * totals)).tolist()
    if full:
        yield Finding(
            "void-masks",
            Severity.warning,
            f"{len(full)} masks are void in every pixel: "
            f"{listed([samples[i].mask_label for i in full], 3)}.",
            "Their images are decoded and trained on for nothing, and count in no figure.",
            "Label them or remove the pairs (--fix DIR leaves them out).",
            files=tuple(samples[i].mask_label for i in full),
            numbers={"masks": len(full)},
            offenders=tuple(Offender(i, samples[i].name) for i in full),
        )
    if share >= _MUCH_VOID or len(heavy) > len(full):
        yield Finding(
            "void-share",
            Severity.warning if share >= _MOSTLY_VOID else Severity.note,
            f"{share:.1%} of all pixels are void; in {len(heavy)} masks it is more than half.",
            "Void is left out of loss and figures: the score speaks only for the rest.",
            "If 255 is a class in these masks, set data.label_map (such as "
            "--set 'data.label_map={0: 0, 255: 1}').",
            files=tuple(samples[i].mask_label for i in heavy),
            numbers={"share": share, "masks": len(heavy)},
            offenders=tuple(Offender(i, samples[i].name, values=(VOID,)) for i in heavy),
        )


def _balance(labels: Labelling) -> Iterator[Finding]:
    pixels = labels.by_class().sum(axis=0)
    shares = pixels / max(pixels.sum(), 1)
    rare = [k for k in range(len(shares)) if 0 < shares[k] < _RARE]
    if rare:
        worst = min(shares[k] for k in rare)
        yield Finding(
            "class-balance",
            Severity.warning if worst < _VERY_RARE else Severity.note,
            "Rare classes: "
            + listed([f"{labels.class_names[k]} ({shares[k]:.2%} of the pixels)" for k in rare])
            + ".",
            "Plain cross entropy is content to leave them out, and a few wrong pixels move their "
            "IoU, and with it the mean, by much.",
            "Search the losses with Dice or Tversky, and class weights.",
            numbers={
                "shares": dict(zip(labels.class_names, map(float, shares), strict=True)),
            },
        )


def _missing(samples: Sequence[SampleFacts], labels: Labelling) -> Iterator[Finding]:
    holds = labels.by_class() > 0
    splits = dict.fromkeys(s.split for s in samples if s.split)
    everywhere = holds.any(axis=0)
    for split in splits:
        here = holds[[i for i, s in enumerate(samples) if s.split == split]].any(axis=0)
        lacking = [labels.class_names[k] for k in np.flatnonzero(everywhere & ~here)]
        if lacking:
            yield Finding(
                "class-missing",
                Severity.warning if split == "test" else Severity.error,
                f"No mask of the {split} split holds {listed(lacking)}.",
                "It cannot be learnt."
                if split == "train"
                else "Its IoU is not defined there and is left out of the mean: the figure speaks "
                "for fewer classes than it seems to.",
                f"Move images that show it into {split}, label more, or set another data.seed.",
                numbers={"split": split, "classes": lacking},
            )
    absent = [labels.class_names[k] for k in np.flatnonzero(~everywhere)]
    if absent and not labels.refused:
        yield Finding(
            "class-absent",
            Severity.warning,
            f"No mask at all holds {listed(absent)}.",
            "The model has an output for it that learns nothing, and its IoU is left out.",
            "Take it out of classes.txt, or add images that show it.",
            numbers={"classes": absent},
        )


def _empty(samples: Sequence[SampleFacts], labels: Labelling) -> Iterator[Finding]:
    classes = labels.by_class()
    totals = classes.sum(axis=1)
    background = labels.background
    foreground = totals - classes[:, background]
    readable = totals > 0
    if not readable.any() or len(labels.class_names) < 2:
        return
    shares = foreground / np.maximum(totals, 1)
    filled = shares[readable & (foreground > 0)]
    if background == 0:
        yield from _empty_masks(samples, np.flatnonzero(readable & (foreground == 0)).tolist())
    if len(filled):
        limit = min(_NEAR_EMPTY * float(np.median(filled)), _TINY_SHARE)
        few = np.flatnonzero(readable & (foreground > 0) & (shares < limit)).tolist()
        if few:
            yield Finding(
                "near-empty-masks",
                Severity.warning,
                f"{len(few)} masks hold only a few pixels beside the background, under "
                f"{limit:.3%}, while the median is {float(np.median(filled)):.1%}: "
                f"{listed([f'{samples[i].mask_label} ({foreground[i]} px)' for i in few], 3)}.",
                "Left-over clicks or unfinished masks: the model is told that what it sees is "
                "background, and one pixel decides the image's IoU.",
                "Finish these masks or remove the specks.",
                files=tuple(samples[i].mask_label for i in few),
                numbers={"masks": len(few), "median_share": float(np.median(filled))},
                offenders=tuple(Offender(i, f"{samples[i].name}: {foreground[i]} px") for i in few),
            )


def _empty_masks(samples: Sequence[SampleFacts], empty: list[int]) -> Iterator[Finding]:
    if not empty:
        return
    share = len(empty) / len(samples)
    yield Finding(
        "empty-masks",
        Severity.warning if share < _FEW_MASKS else Severity.note,
        f"{len(empty)} of {len(samples)} masks hold background only: "
        f"{listed([samples[i].mask_label for i in empty], 3)}.",
        "If something is there and was not labelled, the model is taught to miss it. If nothing "
        "is there, they are useful, but their IoU of the other classes is not defined.",
        "Look at the pictures; label what is there.",
        files=tuple(samples[i].mask_label for i in empty),
        numbers={"masks": len(empty), "share": share},
        offenders=tuple(Offender(i, samples[i].name) for i in empty),
    )
