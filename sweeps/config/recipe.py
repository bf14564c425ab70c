"""A sweep as data: base config, search space, objective, budget, early stopping, first points."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from sweeps.config.budget import Asha, Budget, Objective
from sweeps.config.gates import Gates
from sweeps.config.goals import Goals
from sweeps.config.search import Search, Tpe
from sweeps.config.space import Space, holds
from unetexp.component import Component, flatten
from unetexp.metrics.figures.settings import ValidationFigures
from unetexp.models.encoders import Encoder
from unetexp.training.config import TrainConfig, decode_config

_Objectives = Annotated[
    Annotated[Objective, Tag("one")]
    | Annotated[tuple[Objective, ...], Field(min_length=1), Tag("list")],
    Discriminator(lambda given: "list" if isinstance(given, list | tuple) else "one"),
]


class Recipe(Component):
    """A whole sweep."""

    name: str = Field(description="first part of the sweep's name")
    description: str = Field("", description="one line that the plan, MLflow and the report show")
    base: TrainConfig = Field(
        default_factory=TrainConfig, description="the experiment that the trials vary"
    )
    space: Space = Field(
        default_factory=dict,
        description="what is searched: the dotted path PATH of a setting, and a dimension",
    )
    weights: dict[str, str] = Field(
        default_factory=dict,
        description="initial weights by the encoder's name (resnet50, or timm/resnet50 of a kind), "
        "in place of `encoder.weights`: where several encoders are searched",
    )
    objective: _Objectives = Field(
        Objective(),
        description="what trials are compared by: one objective, or a list of several; the first "
        "decides a trial's best epoch, early stopping and the order of trials",
    )
    search: Search = Field(Tpe(), description="how the next trial is proposed")
    budget: Budget = Field(Budget(), description="how much the sweep may spend")
    asha: Asha = Field(Asha(), description="early stopping by asynchronous successive halving")
    points: tuple[dict[str, Any], ...] = Field(
        (), description="combinations that are tried first; what they leave out is drawn"
    )
    promotion: Gates = Field(
        Gates(), description="the gates that a model passes before it becomes the champion"
    )

    @property
    def goals(self) -> Goals:
        """The objectives, the first of which is the score."""
        given = self.objective
        objectives = (given,) if isinstance(given, Objective) else given
        return Goals(objectives, keeps_last=self.base.data.train_with_val)

    @property
    def figures(self) -> ValidationFigures | None:
        """The figures that a trial which has run all its epochs gets."""
        images = self.budget.figures
        return None if images == "none" else ValidationFigures(self.promotion.figures, images)

    @property
    def most_kept_models(self) -> int:
        """The most trials that keep their weights: a Pareto front may be all of them."""
        return self.budget.trials if self.goals.several else self.budget.kept_models

    def fixed_values(self) -> dict[str, Any]:
        """Dotted path -> value of the base, for conditions on what is not searched."""
        return flatten(self.base.tree())

    @property
    def grace_epochs(self) -> int:
        """Epochs that every trial runs before it may be stopped."""
        third = math.ceil(self.base.epochs / 3)
        settled = max((epoch for _, epoch in self.settled_by()), default=1)
        return self.asha.grace_epochs or min(self.base.epochs, max(third, settled))

    def settled_by(self) -> list[tuple[str, int]]:
        """Settings that make a trial's first scores uninformative, and the epoch where that ends.

        Scores mean little while the learning rate still rises or the encoder is still frozen; the
        first epoch after the thaw is the earliest that counts.
        """
        warm_up = math.ceil(self._longest_warm_up())
        thaw = self._latest("encoder.thaw_epoch")
        ends = [(f"the warm-up of schedule ({warm_up} epochs)", warm_up)] if warm_up else []
        return ends + ([(f"encoder.thaw_epoch ({thaw:g})", int(thaw) + 1)] if thaw else [])

    def bracket(self, values: Mapping[str, Any]) -> str:
        """The bracket of a trial: trials of other brackets are not compared with it."""
        path = self.asha.bracket_by
        if path is None:
            return ""
        return f"{path}={values.get(path, self.fixed_values().get(path))}"

    def brackets(self) -> list[str]:
        """All possible brackets."""
        path = self.asha.bracket_by
        values = self.space[path].samples() if path in self.space else [None]
        return [self.bracket({path: value} if path in self.space else {}) for value in values]

    def _longest_warm_up(self) -> float:
        """Epochs until the learning rate is at its full height in every trial."""
        if "schedule.warmup_epochs" in self.space:
            return self._latest("schedule.warmup_epochs")
        searched = "schedule.warmup" in self.space
        share = self._latest("schedule.warmup") * self.base.epochs if searched else 0.0
        return max(self.base.schedule.warm_up(self.base.epochs), share)

    def _latest(self, path: str) -> float:
        """The largest value that `path` takes in the sweep; 0 where it is not set."""
        searched = self.space[path].samples() if path in self.space else []
        values = [self.fixed_values().get(path), *searched]
        return max(value or 0 for value in values)

    def config(self, values: Mapping[str, Any], changes: Mapping[str, Any] = {}) -> TrainConfig:
        """The experiment at a point of the space."""
        given = {**values, **changes}
        config = decode_config(self.base.tree(), given)
        encoder = config.encoder
        weights = self.weights.get(encoder.full_name, self.weights.get(encoder.name))
        if weights is None or "encoder.weights" in given:
            return config
        return decode_config(config.tree(), {"encoder.weights": weights})

    def encoders(self) -> list[Encoder]:
        """Every encoder that trials may have, the base's first."""
        return [self.config(point).encoder for point in self.encoder_points()]

    def encoder_points(self) -> list[dict[str, Any]]:
        """The values that lead to each encoder, by dotted path; the base's first."""
        found: dict[str, dict[str, Any]] = {self.base.encoder.full_name: {}}
        for kind in self._options("encoder.kind", {}):
            for point in self._options("encoder.name", kind):
                found.setdefault(self.config(point).encoder.full_name, point)
        return list(found.values())

    def _options(self, path: str, given: dict[str, Any]) -> list[dict[str, Any]]:
        """`given` with each value that trials may have at `path`, and without one if they may."""
        dimension = self.space.get(path)
        if dimension is None:
            return [given]
        values = [{**given, path: value} for value in dimension.samples()]
        if any(other in self.space and other not in given for other in dimension.when):
            return [given, *values]
        return values if holds(dimension.when, {**self.fixed_values(), **given}) else [given]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The differences between two trees, one line per dotted path."""
    before, after = flatten(old), flatten(new)
    return [
        f"{path}: {before.get(path, 'absent')} -> {after.get(path, 'absent')}"
        for path in sorted({*before, *after})
        if before.get(path) != after.get(path)
    ]
