"""The model card's figures of outlines, objects and probabilities, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sweeps.promotion.card.origin import table
from sweeps.promotion.evaluation import PromotionDecision
from sweeps.text import count
from unetexp.metrics.bootstrap import Interval, score_intervals
from unetexp.metrics.boundary import BAND
from unetexp.metrics.calibration import BINS
from unetexp.metrics.figures.families import FAMILIES, SIZES, Family
from unetexp.metrics.figures.split import SplitFigures, class_figures

_GROUPS = 10
_BESIDE = {"iou", "dice", "missed_images", "false_images"}  # in another table, or in a sentence
_BESIDE |= {f"object_recall_{size}" for size in SIZES}


def figures_section(decision: PromotionDecision) -> Iterator[str]:
    """Per class, by object size and by group, each with unit, aggregation and interval."""
    figures = decision.chosen.figures
    yield f"## Figures on the {decision.split} split"
    yield ""
    yield _what_they_are(figures)
    for name in figures.class_names:
        yield ""
        yield from table((name, "value (95 % interval)", "unit", "over"), _rows(figures, name))
        yield ""
        yield _misses(figures, name)
    yield ""
    ece, brier = (with_interval(figures.intervals[name]) for name in ("ece", "brier"))
    yield (
        f"Probabilities: expected calibration error {ece} in {BINS} bins, Brier score {brier}, "
        "over the pixels of the set."
    )
    yield from _sizes(figures)
    yield from _groups(decision, figures)


def _what_they_are(figures: SplitFigures) -> str:
    settings, unit = figures.settings, figures.unit
    between = {"pixels": "outermost pixels", "contours": "contours"}[settings.outline]
    return (
        f"Definitions: `docs/figures.md`. Distances are in {unit}, between {between}. NSD, the "
        f"normalised surface Dice, has outlines agree up to {settings.tolerance:g} {unit}; "
        f"boundary IoU is of bands of {BAND:.0%} of an image's diagonal. Objects are connected "
        "areas. Where a class is neither in an image nor predicted, the image does not count; "
        "where it is only one of the two, the image has the worst value: 0, or its diagonal for "
        "HD95."
    )


def _rows(figures: SplitFigures, class_name: str) -> list[tuple[str, str, str, str]]:
    return [
        (
            FAMILIES[family].title,
            with_interval(interval, _digits(FAMILIES[family])),
            figures.unit if FAMILIES[family].distance else "",
            "the set" if FAMILIES[family].aggregation == "set" else "images, mean",
        )
        for family, interval in class_figures(figures, class_name).items()
        if family not in _BESIDE
    ]


def _misses(figures: SplitFigures, class_name: str) -> str:
    missed, false = (
        figures.values[f"{family}/{class_name}"] for family in ("missed_images", "false_images")
    )
    return (
        f"{class_name}: missed altogether in {count(int(missed), 'image')}, predicted in "
        f"{count(int(false), 'image')} without it."
    )


def _sizes(figures: SplitFigures) -> Iterator[str]:
    if not figures.by_size:
        return
    yield ""
    yield "Objects by size, in thirds of those of each class; found: with an IoU above 0.5."
    yield ""
    rows = [
        (
            row.class_name,
            row.size,
            f"{row.up_to:,.4g} {figures.unit}²",
            f"{row.objects:,}",
            with_interval(row.found),
            with_interval(row.covered),
        )
        for row in figures.by_size
    ]
    yield from table(("class", "size", "up to", "objects", "found", "pixels found"), rows)


def _groups(decision: PromotionDecision, figures: SplitFigures) -> Iterator[str]:
    """The groups with the lowest mIoU."""
    if not figures.groups:
        return
    matrices = decision.chosen.assessment.matrices
    own = {
        group: [n for n, each in enumerate(figures.groups) if each == group]
        for group in sorted(set(figures.groups))
    }
    miou = {group: score_intervals(matrices[images])["miou"] for group, images in own.items()}
    worst = sorted(own, key=lambda group: _last_nan(miou[group].value))[:_GROUPS]
    others = figures.by_group(worst)
    yield ""
    yield f"The worst of {count(len(own), 'group')} by mIoU; intervals are over their own images."
    yield ""
    rows = [
        (
            group,
            str(len(own[group])),
            with_interval(miou[group]),
            with_interval(others[group]["nsd"]),
            with_interval(others[group]["hd95"], 2),
        )
        for group in worst
    ]
    yield from table(("group", "images", "mean IoU", "NSD", f"HD95, {figures.unit}"), rows)


def with_interval(interval: Interval, digits: int = 4) -> str:
    """`0.8123 (0.7901 to 0.8342)`."""
    if math.isnan(interval.value):
        return "does not occur"
    if math.isnan(interval.low):
        return f"{interval.value:.{digits}f}"
    bounds = f"{interval.low:.{digits}f} to {interval.high:.{digits}f}"
    return f"{interval.value:.{digits}f} ({bounds})"


def _digits(family: Family) -> int:
    return 2 if family.distance else 4


def _last_nan(value: float) -> float:
    return math.inf if math.isnan(value) else value
