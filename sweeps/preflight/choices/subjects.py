"""Which of a sweep's configurations are measured, and what that says about the others."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sweeps.config.recipe import Recipe
from sweeps.config.space import Choice, holds
from sweeps.preflight.choices.combinations import Model
from unetexp.component import flatten
from unetexp.compute.measured import CHOSEN, Measured, candidates
from unetexp.data import Dataset
from unetexp.errors import ConfigError
from unetexp.models.cost import model_cost
from unetexp.training.config import TrainConfig


@dataclass(frozen=True)
class Subject:
    """A configuration to measure."""

    config: TrainConfig  # what is chosen is `auto` in it
    searched: frozenset[str]

    def model(self, device: torch.device) -> Model:
        encoder, decoder = self.architecture
        return Model(decoder, candidates(self.config, device), self.searched, encoder)

    @property
    def architecture(self) -> tuple[str, str]:
        """The encoder's name and the decoder's kind: settings suit them differently."""
        return self.config.encoder.name, self.config.decoder.kind

    def is_open(self, device: torch.device) -> bool:
        """Whether there is anything to choose."""
        return len(candidates(self.config, device)) > 1 or self.config.compile == "auto"


def subjects(
    recipe: Recipe, slowest: TrainConfig, tried: Mapping[str, TrainConfig]
) -> list[Subject]:
    """`slowest`, and of the configurations `tried` those with another encoder or decoder."""
    searched = frozenset(name for name in CHOSEN if name in recipe.space)
    free = dict.fromkeys(searched, "auto")
    found: dict[tuple[str, str], Subject] = {}
    for config in (slowest, *tried.values()):
        one = Subject(config.model_copy(update=free), searched)
        found.setdefault(one.architecture, one)
    return list(found.values())


def slowest_of(recipe: Recipe, data: Dataset) -> TrainConfig:
    """The base with the encoder that computes most, and as little frozen as the sweep will."""
    point = _costliest(recipe, data)
    config = recipe.config(point)
    dimension = recipe.space.get("encoder.freeze")
    values = {**recipe.fixed_values(), **flatten(config.tree())}
    if not isinstance(dimension, Choice) or not holds(dimension.when, values):
        return config
    levels = config.encoder.levels  # values of other families have none of its own
    level = min(filter(levels.__contains__, dimension.values), key=levels.index, default="none")
    try:
        return recipe.config({**point, "encoder.freeze": level})
    except ConfigError:  # an epoch to thaw in is set, and there is nothing to thaw
        return config


def _costliest(recipe: Recipe, data: Dataset) -> dict[str, Any]:
    """The values of the encoder with the most operations."""
    points = recipe.encoder_points()
    if len(points) == 1:
        return points[0]
    side_px = recipe.base.augment.crop_px

    def operations(point: dict[str, Any]) -> float:
        config = recipe.config(point)
        classes, channels = data.num_classes, data.channels
        return model_cost(config.encoder, config.decoder, classes, channels, side_px).gflops

    return max(points, key=operations)


def mean_pace(recipe: Recipe, measured: Sequence[Measured]) -> float:
    """What a step of the trials takes in the mean, as a share of the first of `measured`.

    Every encoder counts alike, as the search may draw them; those not measured as the first.
    """
    if not measured:
        return 1.0
    first = measured[0]
    paces = {
        found.encoder: _pixel_s(found) / _pixel_s(first)
        for found in measured
        if (found.device, found.decoder) == (first.device, first.decoder)
    }
    names = [encoder.name for encoder in recipe.encoders()]
    return statistics.mean(paces.get(name, 1.0) for name in names)


def _pixel_s(found: Measured) -> float:
    return found.best.step_s / (found.images * found.side_px**2)
