"""Differences in score between trials with one choice and the others, with significance tests.

N trials, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from sweeps.report.searched_settings import Setting
from sweeps.report.sweep_data import EQUAL
from unetexp.metrics.bootstrap import Interval

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

FEWEST = 5  # trials needed on each side of a comparison
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
        """Whether the difference is significant after correction for many comparisons."""
        low, high = self.difference.low, self.difference.high
        return self.enough and self.adjusted_p < LEVEL and (low > 0 or high < 0)


def effects(trials: pd.DataFrame, settings: Iterable[Setting], seed: int = 0) -> list[Effect]:
    """Each choice against the other trials in which its setting was searched.

    Two choices make one comparison. `trials` have a score at equal budget. p-values are adjusted
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
    """p-values adjusted for multiple comparisons, in the order given."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def mean_difference(ours: Floats, others: Floats, rng: np.random.Generator) -> Interval:
    """The difference of two means and its 95 % bootstrap interval.

    Percentiles of resampled differences, widened to match Student's t with Welch's degrees of
    freedom: the plain percentiles are too narrow for few trials (Hesterberg 2015,
    doi:10.1080/00031305.2015.1089789).
    """
    value = float(ours.mean() - others.mean())
    if min(len(ours), len(others)) < 2:
        return Interval(value, np.nan, np.nan)
    unbiased_ours, unbiased_others = _unbiased_mean(ours), _unbiased_mean(others)
    interval = scipy.stats.bootstrap(
        (ours, others),
        lambda a, b, axis: unbiased_ours(a, axis) - unbiased_others(b, axis),
        n_resamples=_RESAMPLES,
        vectorized=True,
        confidence_level=1 - 2 * _tail(ours, others),
        method="percentile",
        rng=rng,
    ).confidence_interval
    return Interval(value, float(interval.low), float(interval.high))


def _unbiased_mean(values: Floats) -> Callable[[Floats, int], Floats]:
    """The mean of a resample, scaled so that resamples spread like an unbiased standard error.

    The mean of `values` itself does not change.
    """
    middle, widening = values.mean(), np.sqrt(len(values) / (len(values) - 1))
    return lambda drawn, axis: middle + (drawn.mean(axis=axis) - middle) * widening


def _tail(ours: Floats, others: Floats) -> float:
    """The normal tail whose quantile is that of Student's t at 2.5 %."""
    first, second = ours.var(ddof=1) / len(ours), others.var(ddof=1) / len(others)
    if first + second == 0:
        return 0.025
    freedom = (first + second) ** 2 / (first**2 / (len(ours) - 1) + second**2 / (len(others) - 1))
    tail = scipy.stats.norm.cdf(scipy.stats.t.ppf(0.025, freedom))
    return max(float(tail), 1 / _RESAMPLES)


def permutation_p(scores: Floats, mask: Mask, rng: np.random.Generator) -> float:
    """How often shuffled labels give a difference of means as large, two-sided.

    For few trials all permutations are used, otherwise a random sample of them.
    """
    tested = scipy.stats.permutation_test(
        (scores[mask], scores[~mask]),
        lambda a, b, axis: np.abs(a.mean(axis=axis) - b.mean(axis=axis)),
        n_resamples=_PERMUTATIONS,
        vectorized=True,
        alternative="greater",  # of the distance
        rng=rng,
    )
    return float(tested.pvalue)


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
