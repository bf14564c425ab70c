"""The figures of a split from those of its images, with intervals, by group and by object size.

I images, R resamples, F figures, P parts: a figure is the sum of the magnitudes of its parts over
its denominator. All have one part but the calibration error, which has one a bin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from unetexp.metrics.bootstrap import Floats, Interval, interval_of, resamples
from unetexp.metrics.figures.families import FAMILIES, SIZES, family_of
from unetexp.metrics.figures.image import ObjectRow
from unetexp.metrics.figures.settings import FigureSettings


@dataclass(frozen=True)
class Pooled:
    """Numerators and denominators of every figure for every image."""

    names: tuple[str, ...]  # (F,)
    starts: tuple[int, ...]  # (F,) of each figure among the parts
    numerators: Floats  # (I, P)
    denominators: Floats  # (I, F)

    def values(self, weights: Floats) -> dict[str, Floats]:
        """Each figure and each mean over classes, (R,), of images weighted by (R, I)."""
        sums = np.add.reduceat(np.abs(weights @ self.numerators), self.starts, axis=1)
        divisors = weights @ self.denominators
        for index, name in enumerate(self.names):
            if family_of(name).aggregation == "count":
                divisors[:, index] = 1
        with np.errstate(invalid="ignore", divide="ignore"):
            found = sums / divisors
        values = {name: found[:, index] for index, name in enumerate(self.names)}
        return {**values, **self._means(values)}

    def _means(self, values: Mapping[str, Floats]) -> dict[str, Floats]:
        """Of each family that has one, the mean over the classes for which it is defined."""
        means = {}
        for family in FAMILIES.values():
            own = [v for name, v in values.items() if name.startswith(f"{family.name}/")]
            if family.mean and own:
                table = np.stack(own)
                known = ~np.isnan(table)
                with np.errstate(invalid="ignore"):
                    means[family.name] = np.where(known, table, 0).sum(0) / known.sum(0)
        return means


@dataclass(frozen=True)
class SizeRow:
    """The objects of a class of about one size."""

    class_name: str
    size: str  # small, medium, large: thirds of the objects of the truth
    up_to: float  # the largest area, in px or mm squared
    objects: int
    found: Interval  # share of the objects
    covered: Interval  # share of their pixels that is predicted as their class


@dataclass(frozen=True)
class SplitFigures:
    """Every figure of a split."""

    settings: FigureSettings
    unit: str  # of distances: px or mm
    class_names: tuple[str, ...]
    image_names: tuple[str, ...]
    groups: tuple[str, ...]  # of each image; empty where the data has none
    pooled: Pooled
    by_size: tuple[SizeRow, ...]

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """Each figure with its 95 % interval, by a bootstrap over the images."""
        images = len(self.image_names)
        drawn = [self.pooled.values(weights) for weights in resamples(images)]
        return {
            name: interval_of(float(value[0]), np.concatenate([part[name] for part in drawn]))
            for name, value in self.pooled.values(np.ones((1, images))).items()
        }

    @cached_property
    def values(self) -> dict[str, float]:
        """Each figure without its interval."""
        ones = np.ones((1, len(self.image_names)))
        return {name: float(value[0]) for name, value in self.pooled.values(ones).items()}

    def unit_of(self, name: str) -> str:
        """px, mm, images, or 1 for a share or a score without a unit."""
        family = family_of(name)
        if family.distance:
            return self.unit
        return "images" if family.aggregation == "count" else "1"

    def by_image(self) -> dict[str, Floats]:
        """Each figure of every image alone (I,)."""
        return self.pooled.values(np.eye(len(self.image_names)))

    def by_group(self, groups: Sequence[str] | None = None) -> dict[str, dict[str, Interval]]:
        """The figures of each group, or of those given, with intervals over its own images."""
        wanted = sorted(set(self.groups)) if groups is None else groups
        return {group: self._of(group) for group in wanted}

    def _of(self, group: str) -> dict[str, Interval]:
        own = np.flatnonzero([each == group for each in self.groups])
        pooled = Pooled(
            self.pooled.names,
            self.pooled.starts,
            self.pooled.numerators[own],
            self.pooled.denominators[own],
        )
        names = tuple(self.image_names[index] for index in own)
        part = SplitFigures(self.settings, self.unit, self.class_names, names, (), pooled, ())
        return part.intervals


def sizes_of(
    objects: Sequence[tuple[int, ObjectRow]], class_names: Sequence[str], images: int
) -> tuple[list[SizeRow], dict[str, tuple[Floats, Floats]]]:
    """The rows by size, and the figures `object_recall_<size>` of each image (I,).

    `objects` are given with the index of their image. A class's objects are parted at the thirds
    of their areas, those of one area together.
    """
    rows: list[SizeRow] = []
    figures: dict[str, tuple[Floats, Floats]] = {}
    labels = np.array([row.label for _, row in objects], np.int64)
    for label in np.unique(labels).tolist():
        own = [pair for pair, at in zip(objects, labels.tolist(), strict=True) if at == label]
        image = np.array([index for index, _ in own])
        areas = np.array([row.area for _, row in own])
        found = np.array([row.found for _, row in own], float)
        pixels = np.array([(row.covered, row.pixels) for _, row in own], float)
        edges = np.quantile(areas, [1 / 3, 2 / 3], method="inverted_cdf")
        bins = np.searchsorted(edges, areas, side="left")
        for number, size in enumerate(SIZES):
            of = bins == number
            if not of.any():
                continue
            counts: list[Floats] = [
                np.bincount(image[of], values[of], minlength=images).astype(np.float64)
                for values in (found, np.ones(len(own)), pixels[:, 0], pixels[:, 1])
            ]
            figures[f"object_recall_{size}/{class_names[label]}"] = (counts[0], counts[1])
            rows.append(
                SizeRow(
                    class_names[label],
                    size,
                    float(areas[of].max()),
                    int(of.sum()),
                    _ratio(counts[0], counts[1]),
                    _ratio(counts[2], counts[3]),
                )
            )
    return rows, figures


def _ratio(numerators: Floats, denominators: Floats) -> Interval:
    """Of sums over images (I,) each."""
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = [
            (weights @ numerators) / (weights @ denominators)
            for weights in resamples(len(numerators))
        ]
    return interval_of(float(numerators.sum() / denominators.sum()), np.concatenate(drawn))


def class_figures(figures: SplitFigures, class_name: str) -> dict[str, Interval]:
    """The figures of one class, by family."""
    named = {family: f"{family}/{class_name}" for family in FAMILIES}
    return {f: figures.intervals[name] for f, name in named.items() if name in figures.intervals}
