"""The checks of a recipe before a sweep starts: paths, values, first points, early stopping."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import optuna

from sweeps.config.goals import check_goals
from sweeps.config.recipe import Recipe
from sweeps.config.space import Choice, Dimension, Integer, search_order, suggest
from unetexp.component import decode, fields_at, override
from unetexp.errors import ConfigError, UserError, not_a_choice
from unetexp.training.batches.train_batches import require_even_shares
from unetexp.training.config import TrainConfig

_SAMPLES = 64  # random points of the space that are checked before a sweep starts
WARM_START_AUTO = "auto"  # in place of a sweep's name: all earlier ones
PLANNED_RECIPES = (
    "recipes"  # the folder beside those of sweeps that keeps recipes planned from data
)
_SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_name(name: str) -> None:
    """Raise UserError unless `name` can name a sweep, which also names a folder."""
    if not _SWEEP_NAME.fullmatch(name):
        raise UserError(
            f"the sweep name {name!r} cannot be used. Allowed: up to 100 letters, digits, dots, "
            "dashes and underscores, the first a letter or digit."
        )
    if name.lower() == WARM_START_AUTO:
        raise UserError(
            f"a sweep cannot be named {name!r}: --warm-start {WARM_START_AUTO} means all "
            "earlier sweeps. Choose another with --name."
        )
    if name.lower() == PLANNED_RECIPES:  # equal where a file system ignores case
        raise UserError(
            f"a sweep cannot be named {name!r}: its folder would be the one that keeps the recipes "
            "planned from data. Choose another with --name."
        )


def check(recipe: Recipe) -> None:
    """Check that paths exist, values suit their paths and first points are in the space.

    Raises ConfigError naming the faults. Random points of the space are decoded too, so that
    values that do not fit together are found before a trial starts.
    """
    check_goals(recipe.goals)
    _check_validation(recipe)
    for path, dimension in recipe.space.items():
        fields_at(TrainConfig, path)
        _refuse_shared(path)
        for other in dimension.when:
            fields_at(TrainConfig, other)
        _check_values(recipe, path, dimension)
    search_order(recipe.space)
    for number, point in enumerate(recipe.points, start=1):
        _check_point(recipe, number, point)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(_SAMPLES if recipe.space else 0):
        values = suggest(recipe.space, study.ask(), recipe.fixed_values())
        try:
            recipe.config(values)
        except ConfigError as error:
            raise ConfigError(f"space: {_describe(values)} do not fit together: {error}") from None
    if recipe.asha.enabled:
        _check_stopping(recipe)
    if recipe.asha.grace_time is not None and recipe.goals.several:
        raise ConfigError(
            f"asha.grace_time {recipe.asha.grace_time}: rungs in time compare one objective, and "
            "this recipe has several. Leave it out, or give one objective."
        )
    if recipe.budget.stop_when is not None and recipe.goals.several:
        raise ConfigError(
            f"budget.stop_when {recipe.budget.stop_when}: it tells what one objective may gain, "
            "and this recipe has several. Leave it out, or give one objective."
        )
    for batch_size in _possible(recipe, "batch_size"):
        for accumulation in _possible(recipe, "accumulation"):
            require_even_shares(batch_size, accumulation, recipe.budget.ranks)


def _check_validation(recipe: Recipe) -> None:
    """Raise ConfigError where trials would be chosen by images that they were trained on."""
    if recipe.base.data.train_with_val and {*recipe.space} - {"seed"}:
        raise ConfigError(
            "data.train_with_val trains on the validation images, and a sweep chooses by them. "
            "Leave it out: python sweeps/promote.py SWEEP --train-final --with-val trains the "
            "best settings on them once the choice is made."
        )


def _refuse_shared(path: str) -> None:
    """Raise ConfigError for what all trials of a sweep have in common: it cannot be searched."""
    if path.partition(".")[0] == "data":
        raise ConfigError(
            f"space.{path}: the data is opened once for all trials, so this setting cannot be "
            f"searched. Set base.{path}, and run a sweep for each value."
        )
    if path == "epochs":
        raise ConfigError(
            "space.epochs: all trials have the same number of epochs, of which ASHA spares those "
            "that promise nothing. Set base.epochs."
        )


def _possible(recipe: Recipe, path: str) -> list[int]:
    """The whole numbers that trials may have at `path`."""
    dimension = recipe.space.get(path)
    if dimension is None:
        return [recipe.fixed_values()[path]]
    if isinstance(dimension, Integer):
        return list(range(dimension.low, dimension.high + 1))
    return dimension.samples()


def _check_stopping(recipe: Recipe) -> None:
    """Raise ConfigError where early stopping would compare trials too early or not at all."""
    grace, epochs = recipe.grace_epochs, recipe.base.epochs
    if grace > epochs:
        raise ConfigError(f"asha.grace_epochs is {grace}, more than all {epochs} epochs.")
    for what, epoch in recipe.settled_by():
        if grace < min(epoch, epochs):
            raise ConfigError(
                f"asha.grace_epochs is {grace}: trials could be stopped by scores from before "
                f"{what} has ended. Give at least {min(epoch, epochs)}, or null to have it chosen, "
                "or set asha.enabled=false."
            )
    path = recipe.asha.bracket_by
    if path is not None:
        fields_at(TrainConfig, path)
        if path in recipe.space and not isinstance(recipe.space[path], Choice):
            raise ConfigError(
                f"asha.bracket_by: {path} is searched as {recipe.space[path].describe()}. Brackets "
                "need a choice: with a range every trial would have a bracket of its own."
            )


def _check_values(recipe: Recipe, path: str, dimension: Dimension) -> None:
    """Each of the dimension's values must suit its field where its conditions hold."""
    met = {p: w[0] if isinstance(w, list) else w for p, w in dimension.when.items()}
    for value in dimension.samples():
        tree = override(TrainConfig, recipe.base.tree(), {**met, path: value})
        try:
            decode(TrainConfig, tree)
        except ConfigError as error:
            faults = [line for line in str(error).splitlines() if line.startswith(path)]
            if faults:
                raise ConfigError(f"space.{faults[0]}") from None


def _check_point(recipe: Recipe, number: int, point: Mapping[str, Any]) -> None:
    for path, value in point.items():
        where = f"points[{number}].{path}"
        if path not in recipe.space:
            raise ConfigError(not_a_choice(where, path, recipe.space))
        if not recipe.space[path].admits(value):
            raise ConfigError(f"{where}: {value!r} is not {recipe.space[path].describe()}.")


def _describe(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{path}={value}" for path, value in values.items())
