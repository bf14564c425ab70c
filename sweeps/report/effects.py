"""How much better or worse trials with one choice did than the others, and whether that is chance.

N trials, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtr

from sweeps.report.searched_settings import Setting
from sweeps.report.sweep_data import EQUAL
from unetexp.metrics.bootstrap import Interval

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

FEWEST = 5  # trials on each side, below which nothing is said
LEVEL = 0.05
_RESAMPLES, _PERMUTATIONS = 2000, 4999


@dataclass(frozen=True)
class Effect:
    """Trials with a choice (`group`) against those with another, at equal budget."""

    setting: str
    group: str
    against: str
    difference: Interval  # of the means of mIoU
    trials: int
    others: int
    p: float  # permutation test, two-sided
    adjusted_p: float = 1.0  # by Holm, over all comparisons of the report

    @property
    def enough(self) -> bool:
        return min(self.trials, self.others) >= FEWEST

    @property
    def clear(self) -> bool:
        """Whether the numbers carry it, many comparisons counted in."""
        low, high = self.difference.low, self.difference.high
        return self.enough and self.adjusted_p < LEVEL and (low > 0 or high < 0)


def effects(trials: pd.DataFrame, settings: Iterable[Setting], seed: int = 0) -> list[Effect]:
    """Each choice against the other trials in which its setting was searched.

    Two choices are one comparison. `trials` have a score at equal budget. p-values are adjusted
    together by Holm's method (1979, https://www.jstor.org/stable/4615733).
    """
    rng = np.random.default_rng(seed)
    found = [effect for setting in settings for effect in _of_setting(trials, setting, rng)]
    tested = [index for index, effect in enumerate(found) if effect.enough]
    adjusted = dict(zip(tested, holm([found[i].p for i in tested]), strict=True))
    return [
        Effect(**{**effect.__dict__, "adjusted_p": adjusted.get(index, 1.0)})
        for index, effect in enumerate(found)
    ]


def holm(p_values: list[float]) -> list[float]:
    """p-values adjusted for being many, in the order given."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def mean_difference(ours: Floats, others: Floats, rng: np.random.Generator) -> Interval:
    """The difference of two means and its 95 % bootstrap interval.

    Percentiles of resampled differences, set wider as Student's t with Welch's degrees of freedom
    asks for: the plain percentiles are too narrow for few trials (Hesterberg 2015,
    doi:10.1080/00031305.2015.1089789).
    """
    value = float(ours.mean() - others.mean())
    if min(len(ours), len(others)) < 2:
        return Interval(value, np.nan, np.nan)
    resampled = _resampled_means(ours, rng) - _resampled_means(others, rng)
    tail = _tail(ours, others)
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def _resampled_means(values: Floats, rng: np.random.Generator) -> Floats:
    """Means of R resamples, (R,), with the spread of an unbiased standard error."""
    count = len(values)
    means = values[rng.integers(count, size=(_RESAMPLES, count))].mean(axis=1)
    middle = values.mean()
    widened: Floats = middle + (means - middle) * np.sqrt(count / (count - 1))
    return widened


def _tail(ours: Floats, others: Floats) -> float:
    """The normal tail whose quantile is that of Student's t at 2.5 %."""
    first, second = ours.var(ddof=1) / len(ours), others.var(ddof=1) / len(others)
    if first + second == 0:
        return 0.025
    freedom = (first + second) ** 2 / (first**2 / (len(ours) - 1) + second**2 / (len(others) - 1))
    low, high = -1e3, 0.0  # bisection: Student's distribution function rises steadily
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if stdtr(freedom, middle) < 0.025 else (low, middle)
    return max(NormalDist().cdf(high), 1 / _RESAMPLES)


def permutation_p(scores: Floats, mask: Mask, rng: np.random.Generator) -> float:
    """How often shuffled labels give a difference of means as large, two-sided."""
    count = int(mask.sum())
    shuffled = rng.permuted(np.tile(scores, (_PERMUTATIONS, 1)), axis=1)[:, :count].mean(axis=1)
    total = scores.mean()
    seen = abs(scores[mask].mean() - total)
    as_large = (np.abs(shuffled - total) >= seen - 1e-12).sum()
    return float((as_large + 1) / (_PERMUTATIONS + 1))


def _of_setting(trials: pd.DataFrame, setting: Setting, rng: np.random.Generator) -> list[Effect]:
    scores = trials[EQUAL].to_numpy(float)
    active = setting.active(trials)
    groups = {name: mask for name, mask in setting.groups(trials).items() if mask.any()}
    two = len(groups) == 2
    rest = "the other choices" if setting.choices else "the other values"
    found = []
    for name, mask in groups.items():
        ours, others = scores[mask], scores[active & ~mask]
        if not len(others):
            continue
        against = next(other for other in groups if other != name) if two else rest
        few = min(len(ours), len(others)) < FEWEST
        p = 1.0 if few else permutation_p(scores[active], mask[active], rng)
        difference = mean_difference(ours, others, rng)
        found.append(Effect(setting.path, name, against, difference, len(ours), len(others), p))
        if two:
            break
    return found
