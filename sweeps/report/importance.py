"""How much of the variance of scores each setting accounts for, with intervals.

Each of many resamples of the trials trains a forest of randomised trees (Geurts 2006,
doi:10.1007/s10994-006-6226-1), which then predicts the trials left out. A setting's importance is
how much that prediction gets worse when the setting's values are shuffled among those trials
(Breiman 2001, doi:10.1023/A:1010933404324), as a share of the variance of the scores. A setting
that is searched only under a condition is shuffled among the trials that meet it.

N trials, F features, P settings, B resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sweeps.report.searched_settings import Setting
from sweeps.report.sweep_data import EQUAL
from unetexp.metrics.bootstrap import Interval

Floats = NDArray[np.float64]

_RESAMPLES, _TREES, _SHUFFLES = 40, 30, 4
_TRIALS_PER_SETTING, _FEWEST = 3, 12
_INACTIVE = -1.0


@dataclass(frozen=True)
class Importance:
    """One setting's share of the variance of scores: median and middle 95 % of the resamples."""

    setting: str
    share: Interval

    @property
    def clear(self) -> bool:
        return self.share.low > 0


def trials_needed(settings: Sequence[Setting]) -> int:
    return max(_FEWEST, _TRIALS_PER_SETTING * len(settings))


def importances(
    trials: pd.DataFrame, settings: Sequence[Setting], seed: int = 0
) -> list[Importance]:
    """The settings, the most important first; empty if there are too few trials to tell.

    `trials` have a score at equal budget.
    """
    varied = [s for s in settings if trials[s.path][s.active(trials)].nunique() > 1]
    scores = trials[EQUAL].to_numpy(float)
    if len(trials) < trials_needed(settings) or not varied or np.ptp(scores) == 0:
        return []
    shares = _shares(trials, varied, scores, np.random.default_rng(seed))  # (B, P)
    middle, low, high = np.quantile(shares, [0.5, 0.025, 0.975], axis=0)
    found = [
        Importance(setting.path, Interval(float(middle[i]), float(low[i]), float(high[i])))
        for i, setting in enumerate(varied)
    ]
    return sorted(found, key=lambda importance: -importance.share.value)


def _shares(
    trials: pd.DataFrame, settings: Sequence[Setting], scores: Floats, rng: np.random.Generator
) -> Floats:
    blocks = [_features(trials, setting) for setting in settings]
    active = [setting.active(trials) for setting in settings]
    shares = []
    for _ in range(_RESAMPLES):
        drawn = rng.integers(len(scores), size=len(scores))
        left_out = np.setdiff1d(np.arange(len(scores)), drawn)
        if len(left_out) < 2:
            continue
        shares.append(_one_resample(blocks, active, scores, drawn, left_out, rng))
    return np.array(shares)


def _one_resample(
    blocks: Sequence[Floats],
    active: Sequence[NDArray[np.bool_]],
    scores: Floats,
    drawn: NDArray[np.int64],
    left_out: NDArray[np.int64],
    rng: np.random.Generator,
) -> list[float]:
    """The importance of each of P settings, from one forest."""
    from sklearn.ensemble import ExtraTreesRegressor

    forest = ExtraTreesRegressor(
        _TREES, min_samples_leaf=2, random_state=int(rng.integers(2**31))
    ).fit(np.hstack(blocks)[drawn], scores[drawn])
    truth = scores[left_out]
    versions = [np.hstack(blocks)[left_out]]
    for which, block in enumerate(blocks):
        among = np.flatnonzero(active[which][left_out])
        for _ in range(_SHUFFLES):
            shuffled = block[left_out].copy()
            shuffled[among] = shuffled[rng.permutation(among)]
            parts = [shuffled if i == which else b[left_out] for i, b in enumerate(blocks)]
            versions.append(np.hstack(parts))
    predicted = forest.predict(np.vstack(versions)).reshape(len(versions), -1)
    errors = ((predicted - truth) ** 2).mean(axis=1)
    worse = errors[1:].reshape(len(blocks), _SHUFFLES).mean(axis=1) - errors[0]
    return list(worse / scores.var())


def _features(trials: pd.DataFrame, setting: Setting) -> Floats:
    """A setting as features (N, F): one column per choice, or the rank of a number."""
    active, values = setting.active(trials), trials[setting.path]
    if setting.choices:
        columns = [(values == choice).to_numpy(bool) & active for choice in setting.choices]
        return np.stack(columns, axis=1).astype(float)
    numbers = pd.to_numeric(values, errors="coerce").where(active)
    ranks: Floats = numbers.rank(pct=True).fillna(_INACTIVE).to_numpy(float)
    return ranks[:, None]
