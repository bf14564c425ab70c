"""The searched settings of a sweep, and the values that its trials had."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from sweeps.config.space import Choice, Dimension, LogUniform, holds
from sweeps.leaderboard.trials import parameter_columns
from unetexp.component import decode
from unetexp.errors import UnetexpError

_FEW_VALUES = 6  # a numeric setting with at most this many values is shown as choices
_MOST_CHOICES = 40  # a text setting with more values than this is a name
_HALVES_BELOW = 18  # trials; with this many or more, a range is split into thirds
_NEVER_SEARCHED = ("seed", "data.", "epochs")


@dataclass(frozen=True)
class Setting:
    """One searched dimension: choices in order, or a range if there are none."""

    path: str
    choices: tuple[Any, ...] = ()
    log: bool = False
    when: dict[str, Any] = field(default_factory=dict)

    def active(self, trials: pd.DataFrame) -> NDArray[np.bool_]:
        """Which trials this setting was searched in, (N,)."""
        has: NDArray[np.bool_] = trials[self.path].notna().to_numpy(bool)
        if not self.when:
            return has
        rows = trials[[path for path in self.when if path in trials]].to_dict("records")
        met: NDArray[np.bool_] = np.fromiter((holds(self.when, row) for row in rows), np.bool_)
        return has & met

    def groups(self, trials: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
        """The active trials by choice, or by halves or thirds of a range; masks (N,)."""
        active, values = self.active(trials), trials[self.path]
        if self.choices:
            return {
                f"{self.path} = {text(choice)}": active & (values == choice).to_numpy(bool)
                for choice in self.choices
            }
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(float, na_value=np.nan)
        if active.sum() < 2:
            return {}
        return self._parts(numbers, active)

    def _parts(
        self, numbers: NDArray[np.float64], active: NDArray[np.bool_]
    ) -> dict[str, NDArray[np.bool_]]:
        if active.sum() < _HALVES_BELOW:
            (middle,) = np.quantile(numbers[active], [0.5])
            return {f"{self.path} above {text(middle)}": active & (numbers > middle)}
        low, high = np.quantile(numbers[active], [1 / 3, 2 / 3])
        return {
            f"{self.path} up to {text(low)}": active & (numbers <= low),
            f"{self.path} from {text(low)} to {text(high)}": active
            & (numbers > low)
            & (numbers <= high),
            f"{self.path} above {text(high)}": active & (numbers > high),
        }


def searched_settings(
    trials: pd.DataFrame, recipe: str | None, params: Mapping[str, str]
) -> tuple[Setting, ...]:
    """The dimensions, from the recipe's text, else the parent's params, else what differs."""
    space = space_of(recipe)
    if space:
        return tuple(_of_dimension(path, d) for path, d in space.items() if path in trials)
    named = [path.strip() for path in params.get("searched", "").split(",")]
    paths = [path for path in named if path in trials]
    if not paths:
        paths = [p for p in parameter_columns(trials) if not p.startswith(_NEVER_SEARCHED)]
        paths = [path for path in paths if _searchable(trials[path])]
    return tuple(_of_column(path, trials[path], params.get(f"space.{path}", "")) for path in paths)


def text(value: object) -> str:
    """A setting's value as text."""
    if isinstance(value, float | np.floating):
        return "-" if math.isnan(value) else f"{value:.3g}"
    return str(value)


def space_of(recipe: str | None) -> dict[str, Any]:
    """The dimensions of a recipe's text, by path; none where it cannot be read."""
    try:
        tree = yaml.safe_load(recipe or "")
        space = tree.get("space") or {}
        return {path: decode(Dimension, dimension) for path, dimension in space.items()}
    except (yaml.YAMLError, AttributeError, UnetexpError):
        return {}  # written by another version


def _searchable(values: pd.Series) -> bool:
    """Whether values that differ look like a dimension: numbers, or a few choices."""
    numeric = pd.api.types.is_numeric_dtype(values)
    return bool(values.nunique() > 1 and (numeric or values.nunique() <= _MOST_CHOICES))


def _of_dimension(path: str, dimension: Any) -> Setting:
    if isinstance(dimension, Choice):
        choices = tuple(value for value in dimension.values if value is not None)
        return Setting(path, choices, when=dimension.when)
    return Setting(path, log=isinstance(dimension, LogUniform), when=dimension.when)


def _of_column(path: str, values: pd.Series, wording: str) -> Setting:
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    known = values.dropna()
    if numeric and (known.nunique() > _FEW_VALUES or " to " in wording):
        wide = bool((known > 0).all() and known.max() > 30 * known.min())
        return Setting(path, log="log scale" in wording or wide)
    return Setting(path, tuple(sorted(known.unique(), key=str)))
