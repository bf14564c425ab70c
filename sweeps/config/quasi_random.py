"""Points that cover a space evenly: a scrambled Sobol sequence, for choices and ranges alike.

Optuna's own QMC sampler draws choices, and what is searched only in some trials, at random.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial
from scipy.stats import qmc


class QuasiRandomSampler(optuna.samplers.BaseSampler):
    """Trial number n gets the n-th point of the sequence; it needs no memory of earlier trials."""

    def __init__(self, paths: Sequence[str], seed: int) -> None:
        """`paths` are the names of all that may be searched: one coordinate each."""
        self._coordinates = {path: place for place, path in enumerate(paths)}
        self._seed = seed

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: Mapping[str, BaseDistribution],
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        sequence = qmc.Sobol(len(self._coordinates), scramble=True, rng=self._seed)
        if trial.number:
            sequence.fast_forward(trial.number)
        point = sequence.random(1)[0]
        return _value(param_distribution, float(point[self._coordinates[param_name]]))


def _value(distribution: BaseDistribution, share: float) -> Any:
    """The value below which `share` (0 to 1) of the distribution lies."""
    match distribution:
        case CategoricalDistribution():
            return distribution.choices[int(share * len(distribution.choices))]
        case IntDistribution():
            return distribution.low + int(share * (distribution.high - distribution.low + 1))
        case FloatDistribution(log=True):
            low, high = math.log(distribution.low), math.log(distribution.high)
            value = math.exp(low + share * (high - low))
            return float(np.clip(value, distribution.low, distribution.high))
        case FloatDistribution():
            return distribution.low + share * (distribution.high - distribution.low)
    raise AssertionError(distribution)
