"""A sweep's own settings: its objective, its budget and its early stopping."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from sweeps.config.metric_names import COST, LATENCY, PARAMETERS
from unetexp.component import Component
from unetexp.errors import ConfigError, not_a_choice

SCORES = ("val/miou", "val/dice", "val/pixel_accuracy")
PER_CLASS = ("val/iou/", "val/dice/")  # and the class's name
COSTS = {"latency_ms": LATENCY, "parameters": PARAMETERS, COST: COST}  # as they are tracked


class Objective(Component):
    """One metric by which trials are compared."""

    metric: str = Field(
        "val/miou",
        description="`val/miou`, `val/dice`, `val/pixel_accuracy`, `val/iou/CLASS` or "
        "`val/dice/CLASS`; as a further objective also `latency_ms`, `parameters` or "
        "`cost/device_s`",
    )
    mode: Literal["max", "min"] = Field(
        "max", description="whether a larger or a smaller value is better: the metric's own"
    )

    @model_validator(mode="before")
    @classmethod
    def _metric_alone(cls, given: Any) -> Any:
        """A metric's name stands for the objective; the mode is the metric's own."""
        tree = {"metric": given} if isinstance(given, str) else given
        if isinstance(tree, dict) and tree.get("metric") in COSTS:
            return {"mode": "min", **tree}
        return tree

    @field_validator("metric")
    @classmethod
    def _metric_exists(cls, metric: str) -> str:
        if metric in (*SCORES, *COSTS) or any(
            metric.startswith(prefix) and metric != prefix for prefix in PER_CLASS
        ):
            return metric
        choices = [*SCORES, *(f"{prefix}CLASS" for prefix in PER_CLASS), *COSTS]
        raise ConfigError(not_a_choice("metric", metric, choices).removeprefix("metric: "))

    @model_validator(mode="after")
    def _own_mode(self) -> Objective:
        own = "min" if self.is_cost else "max"
        if self.mode != own:
            raise ConfigError(f"mode {self.mode}: that of {self.metric} is {own}. Leave it out.")
        return self

    @property
    def is_cost(self) -> bool:
        """Whether it is what a model or its training costs, and not how well it segments."""
        return self.metric in COSTS

    @property
    def tracked(self) -> str:
        """The metric's name in the ledger and in MLflow."""
        return COSTS.get(self.metric, self.metric)

    @property
    def class_name(self) -> str | None:
        """The class that it is about; None for all classes together."""
        found = [p for p in PER_CLASS if self.metric.startswith(p)]
        return self.metric.removeprefix(found[0]) if found else None


def parse_duration(text: str) -> float:
    """`90s`, `45m`, `8h`, `2d` or a sum such as `1h30m` -> seconds."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text.strip()):
        raise ConfigError(f"{text!r} is not a duration: write it like 90s, 45m, 8h, 2d or 1h30m.")
    seconds = sum(float(n) * units[u] for n, _, u in re.findall(r"(\d+(\.\d+)?)([smhd])", text))
    if seconds <= 0:
        raise ConfigError(f"{text!r} is not longer than 0 s: give a duration such as 45m or 8h.")
    return seconds


class Budget(Component):
    """How much the sweep may spend."""

    trials: int = Field(20, ge=1, le=100_000, description="number of configurations to try")
    time: str | None = Field(None, description="wall time such as 45m, 8h or 2d; null: no limit")
    gpus_per_trial: float = Field(
        1.0,
        gt=0,
        description="share of a GPU per trial, or the number of GPUs that train one trial",
    )
    cpus_per_trial: float | None = Field(
        None, gt=0, description="CPU cores per trial; null: all cores, shared evenly"
    )
    max_concurrent: int | None = Field(
        None, ge=1, description="most trials at the same time; null: as many as fit on the devices"
    )
    keep_models: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        3,
        description="how many trials, the best ones, keep their weights, in the storage and in "
        "MLflow; those of another trial are removed once it has ended; all: every trial does",
    )
    figures: Annotated[int, Field(ge=1)] | Literal["auto", "all", "none"] = Field(
        "auto",
        description="validation images on which a trial that has run all its epochs gets the "
        "figures of outlines, objects and probabilities (docs/figures.md), compared as "
        "`promotion.figures` says; auto: all, or evenly spread ones that have 33.5 million pixels "
        "together; none: no such figures",
    )

    stop_when: Literal["converged"] | None = Field(
        None,
        description="converged: no further trial is proposed once those that are left are unlikely "
        "(below 5 %) to gain `min_gain`; null: all trials run",
    )
    min_gain: float = Field(
        0.5,
        gt=0,
        le=100,
        description="gain in points (hundredths of the score) that further trials are run for",
    )
    confirm: int = Field(
        0,
        ge=0,
        le=100,
        description="how many of the best trials are trained again with other seeds when the sweep "
        "is at its end, as `promote.py --confirm` does; `time` covers them; 0: none",
    )
    confirm_seeds: int = Field(
        3, ge=1, le=100, description="seeds with which each of these is trained again"
    )
    race: bool = Field(
        False,
        description="true: the trials of `confirm` get one seed after the other, and one that is "
        "clearly behind the best, with every seed and over the validation images, no further one",
    )

    @field_validator("time")
    @classmethod
    def _time_is_a_duration(cls, time: str | None) -> str | None:
        if time is not None:
            parse_duration(time)
        return time

    @field_validator("gpus_per_trial")
    @classmethod
    def _several_gpus_are_whole(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ConfigError(
                f"{gpus:g} is neither a share of a GPU nor a whole number of GPUs: give at most 1, "
                f"or the number of GPUs that train one trial, such as {int(gpus) + 1}."
            )
        return gpus

    @model_validator(mode="after")
    def _confirms_what_there_is(self) -> Budget:
        if self.confirm > self.trials:
            raise ConfigError(
                f"confirm is {self.confirm}, more than the {self.trials} trials: give at most "
                "as many."
            )
        if self.race and self.confirm < 2:
            raise ConfigError(
                f"race is true and confirm {self.confirm}: a race needs two trials or more. Give "
                "confirm at least 2, or leave race out."
            )
        return self

    @property
    def ranks(self) -> int:
        """Processes that train one trial together, each on its own GPU."""
        return max(1, int(self.gpus_per_trial))

    @property
    def confirming(self) -> int:
        """Trainings with other seeds after the sweep's own trials."""
        return self.confirm * self.confirm_seeds

    @property
    def kept_models(self) -> int:
        """`keep_models` as a number of trials."""
        return self.trials if self.keep_models == "all" else min(self.trials, self.keep_models)


class Asha(Component):
    """Early stopping by asynchronous successive halving."""

    enabled: bool = Field(True, description="false: every trial runs all its epochs")
    grace_epochs: int | None = Field(
        None,
        ge=1,
        description="no trial is stopped before it has trained this many epochs; null: a third of "
        "all epochs, or more where warm-up or thawing take longer",
    )
    grace_time: str | None = Field(
        None,
        description="rungs in time on a worker instead of epochs: no trial is stopped before it "
        "has trained this long, such as 90s or 10m; for spaces whose trials differ much in their "
        "time; null: rungs in epochs",
    )
    reduction_factor: float = Field(
        3.0,
        gt=1,
        description="a trial continues at a rung if it is among the best 1/reduction_factor",
    )
    judged: Literal["best", "last"] = Field(
        "best",
        description="what a trial is compared by at a rung: the best score until then, or that of "
        "the rung's epoch alone",
    )
    bracket_by: str | None = Field(
        None,
        description="dotted path of a setting; only trials with the same value of it are compared "
        "with each other; null: all trials are",
    )

    @field_validator("grace_time")
    @classmethod
    def _grace_is_a_duration(cls, time: str | None) -> str | None:
        if time is not None:
            parse_duration(time)
        return time


NO_SEARCH: dict[str, Any] = {"time": None, "stop_when": None, "confirm": 0, "race": False}
"""What a budget has where trials are trained again and nothing is searched."""
