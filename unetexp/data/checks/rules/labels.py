"""Findings about what the masks hold: wrong values, void, balance, classes that splits lack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from unetexp.data.checks.examine import REFUSED_MASK
from unetexp.data.checks.facts import SampleFacts
from unetexp.data.checks.finding import Finding, Offender, Severity
from unetexp.data.checks.rules.labelling import Labelling, stray_values
from unetexp.data.label_values.remedies import remedies
from unetexp.data.labels import VOID
from unetexp.data.splits.fold_names import is_fold
from unetexp.errors import listed

_MUCH_VOID, _MOSTLY_VOID = 0.2, 0.5
_RARE, _VERY_RARE = 0.01, 0.002  # share of the labelled pixels
_FEW_EMPTY = 0.1  # share of the masks: fewer look like a mistake
_NEAR_EMPTY = 0.01  # share of the median foreground
_TINY_SHARE = 0.002  # of the image
_SHOWN = 6


def label_findings(samples: Sequence[SampleFacts], labels: Labelling) -> Iterator[Finding]:
    """All of them; only that the values are unclear, where what they mean is not known."""
    yield from _wrong_values(samples, labels)
    if not have_classes(labels):
        return
    yield from _void(samples, labels)
    yield from _balance(labels)
    yield from _missing(samples, labels)
    yield from _empty(samples, labels)


def have_classes(labels: Labelling) -> bool:
    """Whether the values are classes, but for stray ones, so that their classes can be judged."""
    return not labels.unclear or bool(stray_values(labels))


def refused_masks(samples: Sequence[SampleFacts]) -> Iterator[Finding]:
    """Masks that the reader refuses one by one."""
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


def uncoded_finding(samples: Sequence[SampleFacts], refused: str) -> Finding:
    """The reader's refusal to make classes of what the masks hold."""
    readable = [(i, s) for i, s in enumerate(samples) if s.pixels is not None]
    named = [(i, s) for i, s in readable if str(s.mask) in refused]
    return Finding(
        "wrong-labels",
        Severity.error,
        "No classes can be made of what the masks hold"
        + (f": {listed([s.mask_label for _, s in named], 3)}." if named else "."),
        "Nothing can be trained on the set until it is said what the values mean. What follows "
        "from the classes was not checked.",
        refused,
        files=tuple(s.mask_label for _, s in named),
        numbers={"masks": len(readable)},
        offenders=tuple(Offender(i, s.name) for i, s in (named or readable)[:_SHOWN]),
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
                "Use fewer folds (data.folds), label more, or set another data.seed."
                if is_fold(split)
                else f"Move images that show it into {split}, label more, or set another "
                "data.seed.",
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
        Severity.warning if share < _FEW_EMPTY else Severity.note,
        f"{len(empty)} of {len(samples)} masks hold background only: "
        f"{listed([samples[i].mask_label for i in empty], 3)}.",
        "If something is there and was not labelled, the model is taught to miss it. If nothing "
        "is there, they are useful, but their IoU of the other classes is not defined.",
        "Look at the pictures; label what is there.",
        files=tuple(samples[i].mask_label for i in empty),
        numbers={"masks": len(empty), "share": share},
        offenders=tuple(Offender(i, samples[i].name) for i in empty),
    )
