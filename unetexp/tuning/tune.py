"""Chooses a model's postprocessing on validation, by nested folds: what does not help stays off.

The steps are the temperature, thresholds, and smallest components, each after what was kept before.
In each outer fold the values are chosen on the other folds, where three inner folds must agree; the
fold itself then measures them. A step is kept where the images that had no say in its choice are
better with it: the 95 % interval of a paired bootstrap over them (over groups, where images have
any) lies above zero, the resamples that are better are all but 0.5 %, the gain is not too small to
matter, and no class loses. Its final values are chosen on all images. A model whose labels are no
better than chance gets none.

I images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetexp.metrics.bootstrap import Interval, compare_paired, interval_of, mean_iou, resamples
from unetexp.postprocessing.labels import labels_of, shares_of
from unetexp.postprocessing.settings import Postprocessing
from unetexp.tuning.cached import CachedProbabilities
from unetexp.tuning.candidates import (
    Choices,
    Matrices,
    by_sizes,
    by_thresholds,
    chance,
    chosen,
    confusion,
    inner_folds,
    no_class_loses,
)
from unetexp.tuning.folds import folds_of
from unetexp.tuning.temperature import Pixels, calibration_error, fitted, pixels_of

FEWEST_IMAGES = 10
MOST_CLASSES = 40  # with more, the candidates' confusion matrices take gigabytes
FOLDS = 5
_SURE = 0.995  # share of the resamples that are better
_LEAST_MIOU = 0.001
_LEAST_KNOWN = 0.02  # of mIoU above chance: less can be luck with few images
_LEAST_LOSS = 0.001  # nats a pixel


@dataclass(frozen=True)
class Step:
    """A step as it was measured on images that had no say in its choice."""

    name: str  # temperature, thresholds, smallest components
    measure: str
    before: float
    after: float
    gain: Interval
    kept: bool
    found: str  # what was chosen on all images, or why nothing was


@dataclass(frozen=True)
class Tuned:
    """What was chosen, and what each step was worth."""

    settings: Postprocessing
    images: int
    folds: int
    steps: tuple[Step, ...] = ()
    why_none: str = ""
    calibration: tuple[float, float] | None = None  # expected error, before and after
    pixels: tuple[Pixels, ...] = field(default=(), repr=False)

    @property
    def verdict(self) -> str:
        """In a sentence."""
        if self.why_none:
            return f"none: {self.why_none}"
        kept = [step.name for step in self.steps if step.kept]
        if not kept:
            return "none: measured, and nothing helped"
        return self.settings.describe()


def tune(images: CachedProbabilities, class_names: Sequence[str], seed: int = 0) -> Tuned:
    """The postprocessing that helps on these images, or none."""
    folds = folds_of(images.groups, FOLDS, seed)
    units = len(set(images.groups))
    if units < FEWEST_IMAGES:
        what = "images" if units == len(images) else "groups of images"
        why = f"{units} {what} are too few to measure it, at least {FEWEST_IMAGES} are needed"
        return Tuned(Postprocessing(), len(images), len(folds), why_none=why)
    tuner = _Tuner(images, tuple(class_names), folds)
    if not tuner.knows_something():
        why = "its labels are no better than chance here"
        return Tuned(Postprocessing(), len(images), len(folds), why_none=why)
    tuner.temperature()
    if len(tuner.names) <= MOST_CLASSES:
        tuner.thresholds()
        tuner.sizes()
    return tuner.result()


class _Tuner:
    """The steps one after the other; `now` is what each fold's other images have chosen."""

    def __init__(
        self,
        images: CachedProbabilities,
        names: tuple[str, ...],
        folds: list[NDArray[np.intp]],
    ) -> None:
        self.images, self.names, self.folds = images, names, folds
        self.every = np.arange(len(images))
        _, self.units = np.unique(np.array(images.groups), return_inverse=True)
        self.fold_of = np.empty(len(images), np.intp)
        for number, places in enumerate(folds):
            self.fold_of[places] = number
        self.settings = Postprocessing()
        self.now = [Postprocessing() for _ in folds]
        self.steps: list[Step] = []
        self.pixels = pixels_of(images)

    def knows_something(self) -> bool:
        """Whether labels say more of the truth than how often each class is predicted."""
        plain = self._matrices([self.settings] * len(self.images))
        compared = compare_paired(self._by_unit(plain), self._by_unit(chance(plain)))
        return compared.difference.low > _LEAST_KNOWN and compared.probability >= _SURE

    def temperature(self) -> None:
        """Fitted by the likelihood."""
        others = [np.setdiff1d(self.every, fold) for fold in self.folds]
        at = [fitted([self.pixels[index] for index in rest]) for rest in others]
        held_out = [at[fold] for fold in self.fold_of]
        before = np.array([image.loss(1.0) for image in self.pixels])
        after = np.array([image.loss(t) for image, t in zip(self.pixels, held_out, strict=True)])
        gains = before - after
        of_unit, images = np.bincount(self.units, gains), np.bincount(self.units)
        drawn = np.concatenate(
            [times @ of_unit / (times @ images) for times in resamples(len(images))]
        )
        gain = interval_of(float(gains.mean()), drawn)
        right = calibration_error(self.pixels, held_out)
        plain = calibration_error(self.pixels, [1.0] * len(self.pixels))
        sure = float((drawn > 0).mean()) >= _SURE
        kept = sure and gain.low > 0 and gain.value >= _LEAST_LOSS and right < plain
        value = fitted(self.pixels)
        self._add(
            Step(
                "temperature",
                "negative log-likelihood",
                float(before.mean()),
                float(after.mean()),
                gain,
                kept,
                f"{value:.3g}",
            ),
            {"temperature": value},
            [{"temperature": t} for t in at],
        )

    def thresholds(self) -> None:
        """For each class but the first."""

        def candidates(settings: Postprocessing) -> Choices:
            return by_thresholds(self.images, settings.temperature, len(self.names))

        self._choose("thresholds", "thresholds", candidates, float)

    def sizes(self) -> None:
        """For each class."""

        def candidates(settings: Postprocessing) -> Choices:
            return by_sizes(self.images, settings, self.names)

        self._choose("smallest components", "minimum_px", candidates, int)

    def result(self) -> Tuned:
        """After all steps."""
        temperatures = [self.settings.temperature] * len(self.pixels)
        plain = calibration_error(self.pixels, [1.0] * len(self.pixels))
        return Tuned(
            self.settings,
            len(self.images),
            len(self.folds),
            tuple(self.steps),
            calibration=(plain, calibration_error(self.pixels, temperatures)),
            pixels=tuple(self.pixels),
        )

    def _choose(
        self, name: str, path: str, candidates: Callable[[Postprocessing], Choices], kind: type
    ) -> None:
        """Choose a value for each class in each fold, measure it there, and keep it if it helps."""
        known: dict[str, tuple[Choices, Matrices]] = {}

        def best(settings: Postprocessing, parts: list[NDArray[np.intp]]) -> dict[str, Any]:
            key = settings.describe()
            if key not in known:
                known[key] = candidates(settings), self._matrices([settings] * len(self.images))
            found = chosen(*known[key], parts)
            return {self.names[label]: kind(value) for label, value in sorted(found.items())}

        in_folds = [
            {path: best(settings, inner_folds(np.setdiff1d(self.every, fold), self.units))}
            for fold, settings in zip(self.folds, self.now, strict=True)
        ]
        changed = [
            settings.model_copy(update=update)
            for settings, update in zip(self.now, in_folds, strict=True)
        ]
        plain, tuned = (
            self._matrices([each[fold] for fold in self.fold_of]) for each in (self.now, changed)
        )
        compared = compare_paired(self._by_unit(tuned), self._by_unit(plain))
        gain, final = compared.difference, best(self.settings, inner_folds(self.every, self.units))
        sure = gain.low > 0 and compared.probability >= _SURE and no_class_loses(tuned, plain)
        kept = bool(final) and sure and gain.value >= _LEAST_MIOU
        told = ", ".join(f"{label} {value:g}" for label, value in final.items())
        found = told or "no value is better in all inner folds"
        step = Step(name, "mIoU", mean_iou(plain), mean_iou(tuned), gain, kept, found)
        self._add(step, {path: final}, in_folds)

    def _add(
        self, step: Step, update: Mapping[str, Any], in_folds: Sequence[Mapping[str, Any]]
    ) -> None:
        self.steps.append(step)
        if step.kept:
            self.settings = self.settings.model_copy(update=update)
            self.now = [
                settings.model_copy(update=each)
                for settings, each in zip(self.now, in_folds, strict=True)
            ]

    def _by_unit(self, matrices: Matrices) -> Matrices:
        """(I, K, K) -> one of each group: images of a group are no independent witnesses."""
        summed = np.zeros((int(self.units.max()) + 1, *matrices.shape[1:]), matrices.dtype)
        np.add.at(summed, self.units, matrices)
        return summed

    def _matrices(self, settings: Sequence[Postprocessing]) -> Matrices:
        """(I, K, K) of the images, each with its own settings."""
        found = []
        for index, own in enumerate(settings):
            logits, truth = self.images[index]
            labels = labels_of(shares_of(logits, own.temperature), own, self.names)
            found.append(confusion(labels, truth, len(self.names)))
        return np.stack(found)
