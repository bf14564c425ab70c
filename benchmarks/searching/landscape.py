"""What a trial of any configuration would have reported: curves for every cell of a fine grid.

G cells, E epochs, n configurations, R residuals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.curves.curve_table import RUN, Curves
from benchmarks.searching.surrogates import SURROGATES, validation
from sweeps.config.recipe import Recipe
from sweeps.config.space import Choice, Dimension, LogUniform, holds, search_order
from sweeps.search.features import features, share
from unetexp.component import decode

SCORE = "val/miou"
CLOSE = 0.005  # half a point
_LEVELS, _LOG_LEVELS = 9, 65  # of a range in the grid
_ALIKE = 8  # repeated runs, those that end most alike, that a trial's noise is drawn from
_UNLIMITED = 100_000


@dataclass(frozen=True)
class Repeats:
    """What seeds change: residuals of repeated runs."""

    ends: np.ndarray  # (R,) best score of the configuration, mean of its seeds
    residuals: np.ndarray  # (R, E)

    def draw(self, end: float, rng: np.random.Generator) -> np.ndarray:
        """A residual (E,) of a run whose configuration ends near `end`."""
        if not len(self.ends):
            return np.zeros(self.residuals.shape[1])
        alike = np.argsort(np.abs(self.ends - end), kind="stable")[:_ALIKE]
        return self.residuals[rng.choice(alike)]


class Landscape:
    """The recorded curves of one set, interpolated over the space."""

    def __init__(self, curves: Curves, of_set: str, surrogate: str = "forest") -> None:
        self.name, self.epochs = of_set, int(curves.origin["epochs"])
        self.recipe: Recipe = decode(
            Recipe,
            {
                "name": "replay",
                "base": {"epochs": self.epochs},
                "space": curves.origin["space"],
                "budget": {"trials": _UNLIMITED},
            },
        )
        self.space = self.recipe.space
        self._order = search_order(self.space)
        self._levels = {path: _levels(dimension) for path, dimension in self.space.items()}
        self.configurations, scores, seconds, self.repeats = recorded(
            curves.of_set(of_set), self._order, self.epochs
        )
        self._inputs, self._recorded = features(self.space, self.configurations), scores
        cells = list(self._cells({}, self._order))
        self._rows = {tuple(sorted(cell.items())): row for row, cell in enumerate(cells)}
        grid = features(self.space, cells)
        make = SURROGATES[surrogate]
        self.scores = make().fit(self._inputs, scores).predict(grid)  # (G, E)
        self.seconds = np.exp(make().fit(self._inputs, np.log(seconds)).predict(grid))  # (G, E)
        self.best = float(self.scores.max())

    @property
    def training_s(self) -> float:
        """Device seconds of a whole training, mean over the cells."""
        return float(self.seconds.sum(axis=1).mean())

    def row(self, values: Mapping[str, Any]) -> int:
        """The cell of a configuration."""
        return self._rows[tuple(sorted((p, self._snapped(p, v)) for p, v in values.items()))]

    def run(self, values: Mapping[str, Any], rng: np.random.Generator) -> np.ndarray:
        """The scores (E,) of one training, with the noise of its seed."""
        row = self.row(values)
        noise = self.repeats.draw(float(self.scores[row].max()), rng)
        return np.clip(self.scores[row] + noise, 0.0, 1.0)

    def close_share(self, configurations: list[dict[str, Any]]) -> float:
        """How many of the configurations end within CLOSE of the best."""
        ends = [self.scores[self.row(values)].max() for values in configurations]
        return float(np.mean([self.best - end <= CLOSE for end in ends]))

    def validation(self) -> dict[str, float]:
        """Surrogate -> leave-one-out rank correlation of best scores."""
        return validation(self._inputs, self._recorded)

    def _cells(self, values: dict[str, Any], left: list[str]) -> Iterator[dict[str, Any]]:
        if not left:
            yield values
            return
        path, *rest = left
        if not holds(self.space[path].when, {**self.recipe.fixed_values(), **values}):
            yield from self._cells(values, rest)
            return
        for level in self._levels[path]:
            yield from self._cells({**values, path: level}, rest)

    def _snapped(self, path: str, value: Any) -> Any:
        dimension, levels = self.space[path], self._levels[path]
        if isinstance(dimension, Choice):
            return value
        return levels[round(share(dimension, value) * (len(levels) - 1))]


def _levels(dimension: Dimension) -> list[Any]:
    if isinstance(dimension, Choice):
        return list(dimension.values)
    if isinstance(dimension, LogUniform):
        exponents = np.linspace(math.log(dimension.low), math.log(dimension.high), _LOG_LEVELS)
        return [float(level) for level in np.exp(exponents)]
    return [float(level) for level in np.linspace(dimension.low, dimension.high, _LEVELS)]


def recorded(
    rows: pd.DataFrame, paths: list[str], epochs: int
) -> tuple[list[dict[str, Any]], np.ndarray, np.ndarray, Repeats]:
    """The configurations, their mean scores and CPU seconds of each epoch (n, E), the residuals.

    A run that failed has score 0 from then on.
    """
    configurations, means, costs, ends, residuals = [], [], [], [], []
    for _, config in rows.groupby("config"):
        runs = [run.sort_values("epoch") for _, run in config.groupby(RUN)]
        scores = np.array([_padded(run[SCORE].to_numpy(), epochs, 0.0) for run in runs])
        seconds = [run["cpu_s"].to_numpy() for run in runs]
        mean = scores.mean(axis=0)
        means.append(mean)
        costs.append(np.mean([_padded(s, epochs, float(s.mean())) for s in seconds], axis=0))
        first = config.iloc[0]
        configurations.append({p: first[p] for p in paths if p in first and pd.notna(first[p])})
        if len(runs) > 1:
            unbiased = math.sqrt(len(runs) / (len(runs) - 1))
            residuals += [(run - mean) * unbiased for run in scores]
            ends += [float(mean.max())] * len(runs)
    repeats = Repeats(np.array(ends), np.array(residuals).reshape(-1, epochs))
    return configurations, np.array(means), np.array(costs), repeats


def _padded(values: np.ndarray, length: int, filling: float) -> np.ndarray:
    return np.concatenate([values, np.full(length - len(values), filling)])
