"""Interpolation of recorded curves between the recorded configurations.

n configurations, F features, E epochs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsRegressor

from sweeps.config.space import Choice, Dimension, LogUniform

SURROGATES: dict[str, Callable[[], Any]] = {
    "forest": lambda: ExtraTreesRegressor(100, min_samples_leaf=2, random_state=0),
    "neighbours": lambda: KNeighborsRegressor(5, weights="distance"),
    "nearest": lambda: KNeighborsRegressor(1),
}
_ABSENT = 0.5  # the place of a number that a configuration does not have


def features(
    space: Mapping[str, Dimension], configurations: Sequence[Mapping[str, Any]]
) -> np.ndarray:
    """(n, F): 0 or 1 for each choice, 0 to 1 for each number."""
    columns = []
    for path, dimension in space.items():
        values = [values.get(path) for values in configurations]
        if isinstance(dimension, Choice):
            columns += [[float(v == choice) for v in values] for choice in dimension.values]
        else:
            columns.append([_ABSENT if v is None else share(dimension, v) for v in values])
    return np.array(columns).T


def share(dimension: Dimension, value: float) -> float:
    """Where a number lies in its range, 0 to 1."""
    assert not isinstance(dimension, Choice)
    scale = math.log if isinstance(dimension, LogUniform) else float
    low, high = scale(dimension.low), scale(dimension.high)
    return (scale(value) - low) / (high - low)


def validation(inputs: np.ndarray, curves: np.ndarray) -> dict[str, float]:
    """Surrogate -> rank correlation of best scores, each predicted from all other configurations.

    `inputs` (n, F), `curves` (n, E).
    """
    found = {}
    for name, make in SURROGATES.items():
        predicted = cross_val_predict(make(), inputs, curves, cv=LeaveOneOut())
        ranks = stats.spearmanr(predicted.max(axis=1), curves.max(axis=1))
        found[name] = float(ranks.statistic)
    return found
