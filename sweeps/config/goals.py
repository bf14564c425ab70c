"""What a sweep compares its trials by: one objective, or several and their Pareto front.

N trials, G objectives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sweeps.config.budget import Objective
from sweeps.config.metric_names import BEST
from unetexp.component import decode
from unetexp.errors import ConfigError, not_a_choice

KEEPS = "sweep.keeps"  # of a sweep's run, where its trials keep another epoch than their best
_LAST = "last epoch"
TAG = "sweep.objective"  # of a sweep's run, where it is not val/miou alone: a list in JSON
_LABELS = {"val/miou": "mIoU", "val/dice": "Dice", "val/pixel_accuracy": "pixel accuracy"}


@dataclass(frozen=True)
class Goals:
    """The objectives of a sweep; the first one is the score that orders its trials."""

    objectives: tuple[Objective, ...] = (Objective(),)
    keeps_last: bool = False  # validation images are trained on: no epoch can be chosen by them

    @property
    def score(self) -> str:
        """The validation metric that decides a trial's best epoch and the order of trials."""
        return self.objectives[0].metric

    @property
    def best(self) -> str:
        """The name of a trial's best score."""
        return f"{BEST}{self.score}"

    @property
    def others(self) -> tuple[Objective, ...]:
        return self.objectives[1:]

    @property
    def several(self) -> bool:
        return len(self.objectives) > 1

    @property
    def directions(self) -> list[Literal["minimize", "maximize"]]:
        """Of each objective, as Optuna names them."""
        return ["minimize" if each.mode == "min" else "maximize" for each in self.objectives]

    @property
    def usual(self) -> bool:
        """Whether it is val/miou alone, which no tag has to tell."""
        return self.objectives == USUAL.objectives

    @property
    def label(self) -> str:
        """The score as a reader calls it: mIoU, Dice, IoU of lesion."""
        first = self.objectives[0]
        if first.class_name is None:
            return _LABELS[first.metric]
        return f"{'IoU' if first.metric.startswith('val/iou/') else 'Dice'} of {first.class_name}"

    @property
    def columns(self) -> tuple[str, ...]:
        """The metric of each objective in a table of trials: the best score, then as tracked."""
        return (self.best, *(each.tracked for each in self.others))

    def describe(self) -> str:
        """`val/miou (max), latency_ms (min)`."""
        return ", ".join(f"{each.metric} ({each.mode})" for each in self.objectives)

    def tag(self) -> dict[str, str]:
        """The tags of the sweep's run; none for val/miou alone."""
        tags = {KEEPS: _LAST} if self.keeps_last else {}
        if self.usual:
            return tags
        return {**tags, TAG: json.dumps([each.metric for each in self.objectives])}

    def dominates(self, one: Sequence[float], other: Sequence[float]) -> bool:
        """Whether `one` is nowhere worse than `other`, and better somewhere."""
        pairs = list(zip(self._losses(one), self._losses(other), strict=True))
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    def front(self, points: Sequence[Sequence[float]]) -> list[int]:
        """The indices of the points (N, G) that no other one dominates, in order.

        A point that lacks a value is not among them.
        """
        losses = np.array([self._losses(point) for point in points], float)
        if not len(losses):
            return []
        whole = np.isfinite(losses).all(axis=1)
        return [
            index
            for index, own in enumerate(losses)
            if whole[index]
            and not ((losses <= own).all(axis=1) & (losses < own).any(axis=1) & whole).any()
        ]

    def _losses(self, point: Sequence[float]) -> list[float]:
        """Smaller is better, for each objective."""
        pairs = zip(self.objectives, point, strict=True)
        return [value if each.mode == "min" else -value for each, value in pairs]


USUAL = Goals()


def goals_of(tags: Mapping[str, str]) -> Goals:
    """The goals of the sweep whose run has these tags; those of older ones have none."""
    metrics = json.loads(tags[TAG]) if TAG in tags else [Objective().metric]
    objectives: tuple[Objective, ...] = tuple(decode(Objective, metric) for metric in metrics)
    return Goals(objectives, keeps_last=tags.get(KEEPS) == _LAST)


def check_goals(goals: Goals) -> None:
    """ConfigError where the first objective is a cost, or one is given twice."""
    metrics = [each.metric for each in goals.objectives]
    if goals.objectives[0].is_cost:
        raise ConfigError(
            f"objective: {metrics[0]} cannot be the first or only one, because it does not tell "
            "which epoch of a trial is the best. Put a validation metric before it, such as "
            f"[val/miou, {metrics[0]}]."
        )
    twice = [metric for metric in metrics if metrics.count(metric) > 1]
    if twice:
        raise ConfigError(f"objective: {twice[0]} is given twice. Give each metric once.")


def check_classes(goals: Goals, class_names: Sequence[str], val_pixels: Sequence[int]) -> None:
    """ConfigError for a class that the data lacks, or whose pixels in validation are none.

    `val_pixels` are those of each class (K,).
    """
    for objective in goals.objectives:
        name = objective.class_name
        if name is None:
            continue
        if name not in class_names:
            where = f"objective {objective.metric}: the class"
            raise ConfigError(not_a_choice(where, name, class_names))
        if not val_pixels[class_names.index(name)]:
            raise ConfigError(
                f"objective {objective.metric}: no mask of the val split holds the class {name}, "
                "so it cannot be measured. Give the data another split, or choose another class."
            )
