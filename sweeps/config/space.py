"""What a sweep searches: dimensions on dotted paths, conditions between them, sampling."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, Self

import optuna
from pydantic import Field, model_validator

from unetexp.component import Component
from unetexp.errors import ConfigError

Scalar = str | float | bool | None
Conditions = dict[str, Any]


class _Dimension(Component):
    when: Conditions = Field(
        default_factory=dict,
        description="mapping from other paths to a value or a list of values; this setting is "
        "searched only in trials that have them",
    )


class Choice(_Dimension):
    """One of the listed values."""

    kind: Literal["choice"] = "choice"
    values: tuple[Any, ...] = Field(min_length=1, description="the values to choose from")

    @model_validator(mode="after")
    def _values_are_scalars_and_differ(self) -> Self:
        for value in self.values:
            if not isinstance(value, str | int | float | bool | None):
                raise ConfigError(f"{value!r} cannot be searched: list single values.")
        if len({repr(value) for value in self.values}) < len(self.values):
            raise ConfigError(f"a value occurs twice in {list(self.values)}.")
        return self

    def suggest(self, trial: optuna.trial.BaseTrial, path: str) -> Any:
        return trial.suggest_categorical(path, self.values)

    def admits(self, value: object) -> bool:
        return value in self.values

    def samples(self) -> list[Any]:
        """Values to check against the field at its path."""
        return list(self.values)

    def describe(self) -> str:
        return "one of " + ", ".join(map(str, self.values))


class _Range(_Dimension):
    low: float = Field(description="smallest value, included")
    high: float = Field(description="largest value, included")

    @model_validator(mode="after")
    def _low_is_below_high(self) -> Self:
        if not self.low < self.high:
            raise ConfigError(f"low {self.low} must be below high {self.high}.")
        return self

    def admits(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def samples(self) -> list[Any]:
        return [self.low, self.high]


class Uniform(_Range):
    """Any number between low and high."""

    kind: Literal["uniform"] = "uniform"

    def suggest(self, trial: optuna.trial.BaseTrial, path: str) -> float:
        return trial.suggest_float(path, self.low, self.high)

    def describe(self) -> str:
        return f"{self.low:g} to {self.high:g}"


class LogUniform(_Range):
    """Any positive number between low and high, with equal weight for every order of magnitude."""

    kind: Literal["loguniform"] = "loguniform"
    low: float = Field(gt=0, description="smallest value, included")

    def suggest(self, trial: optuna.trial.BaseTrial, path: str) -> float:
        return trial.suggest_float(path, self.low, self.high, log=True)

    def describe(self) -> str:
        return f"{self.low:g} to {self.high:g}, log scale"


class Integer(_Range):
    """A whole number from low to high, both included."""

    kind: Literal["int"] = "int"
    low: int = Field(description="smallest value, included")
    high: int = Field(description="largest value, included")

    def suggest(self, trial: optuna.trial.BaseTrial, path: str) -> int:
        return trial.suggest_int(path, int(self.low), int(self.high))

    def describe(self) -> str:
        return f"whole number {self.low} to {self.high}"


Dimension = Annotated[Choice | Uniform | LogUniform | Integer, Field(discriminator="kind")]
Space = dict[str, Dimension]


def search_order(space: Mapping[str, Dimension]) -> list[str]:
    """The paths, each after those in its conditions; ConfigError for a cycle of conditions."""
    graph = {
        path: [other for other in dimension.when if other in space]
        for path, dimension in space.items()
    }
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        cycle = " -> ".join(error.args[1])
        raise ConfigError(f"space: conditions depend on each other: {cycle}") from None


def holds(conditions: Conditions, values: Mapping[str, Any]) -> bool:
    """Whether every condition is met by the dotted `values`."""
    return all(
        values.get(path) in (wanted if isinstance(wanted, list | tuple) else [wanted])
        for path, wanted in conditions.items()
    )


def suggest(
    space: Mapping[str, Dimension], trial: optuna.trial.BaseTrial, fixed: Mapping[str, Any]
) -> dict[str, Any]:
    """Draw a value for every dimension whose conditions hold; `fixed` are the base's values."""
    drawn: dict[str, Any] = {}
    for path in search_order(space):
        if holds(space[path].when, {**fixed, **drawn}):
            drawn[path] = space[path].suggest(trial, path)
    return drawn
