"""Settings as numbers, for models that predict scores and seconds from them.

n configurations, F features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sweeps.config.space import Choice, Dimension, LogUniform

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
