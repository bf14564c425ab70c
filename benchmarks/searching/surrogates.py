"""Interpolation of recorded curves between the recorded configurations.

n configurations, F features (`sweeps.search.features`), E epochs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsRegressor

SURROGATES: dict[str, Callable[[], Any]] = {
    "forest": lambda: ExtraTreesRegressor(100, min_samples_leaf=2, random_state=0),
    "neighbours": lambda: KNeighborsRegressor(5, weights="distance"),
    "nearest": lambda: KNeighborsRegressor(1),
}


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
