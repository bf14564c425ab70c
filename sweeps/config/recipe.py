"""A sweep as data: base config, search space, objective, budget, early stopping, first points.

A recipe is read, changed by the command line and checked as a whole before anything starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from pydantic import Field

import sweeps
from sweeps.config.budget import Asha, Budget, Objective
from sweeps.config.gates import Gates
from sweeps.config.space import Choice, Dimension, Integer, Space, holds, search_order, suggest
from unetexp.component import Component, Tree, decode, fields_at, flatten, override
from unetexp.errors import ConfigError, not_a_choice
from unetexp.training.batches import require_even_shares
from unetexp.training.config import TrainConfig, decode_config, read_tree

RECIPES = Path(str(sweeps.__file__)).parent / "recipes"
_OWN = ("budget", "asha", "objective", "promotion")
_PROBES = 64  # random points of the space that are checked before a sweep starts


class Recipe(Component):
    """A whole sweep, checked."""

    name: str = Field(description="first part of the sweep's name")
    description: str = Field("", description="one line that the plan, MLflow and the report show")
    base: TrainConfig = Field(
        default_factory=TrainConfig, description="the experiment that the trials vary"
    )
    space: Space = Field(
        default_factory=dict,
        description="what is searched: the dotted path PATH of a setting, and a dimension",
    )
    objective: Objective = Field(Objective(), description="what the sweep looks for")
    budget: Budget = Field(Budget(), description="how much the sweep may spend")
    asha: Asha = Field(Asha(), description="early stopping by asynchronous successive halving")
    points: tuple[dict[str, Any], ...] = Field(
        (), description="combinations that are tried first; what they leave out is drawn"
    )
    promotion: Gates = Field(
        Gates(), description="the gates that a model passes before it becomes the champion"
    )

    def fixed_values(self) -> dict[str, Any]:
        """Dotted path -> value of the base, for conditions on what is not searched."""
        return flatten(self.base.tree())

    @property
    def grace_epochs(self) -> int:
        """Epochs that every trial is given before it may be stopped."""
        third = math.ceil(self.base.epochs / 3)
        settled = max((epoch for _, epoch in self.settled_by()), default=1)
        return self.asha.grace_epochs or min(self.base.epochs, max(third, settled))

    def settled_by(self) -> list[tuple[str, int]]:
        """What keeps a trial's first epochs from telling how good it is, and until which epoch.

        A rate that is still rising and a frozen encoder that has yet to thaw say nothing of what
        follows; the first epoch after the thaw is the earliest that does.
        """
        warm_up = math.ceil(self._latest("schedule.warmup_epochs"))
        thaw = self._latest("encoder.thaw_epoch")
        ends = [(f"schedule.warmup_epochs ({warm_up})", warm_up)] if warm_up else []
        return ends + ([(f"encoder.thaw_epoch ({thaw:g})", int(thaw) + 1)] if thaw else [])

    def bracket(self, values: Mapping[str, Any]) -> str:
        """The bracket of a trial: trials of other brackets are not compared with it."""
        path = self.asha.bracket_by
        if path is None:
            return ""
        return f"{path}={values.get(path, self.fixed_values().get(path))}"

    def brackets(self) -> list[str]:
        """All brackets there can be."""
        path = self.asha.bracket_by
        values = self.space[path].samples() if path in self.space else [None]
        return [self.bracket({path: value} if path in self.space else {}) for value in values]

    def _latest(self, path: str) -> float:
        """The largest value that `path` takes in the sweep; 0 where it is not set."""
        searched = self.space[path].samples() if path in self.space else []
        values = [self.fixed_values().get(path), *searched]
        return max(value or 0 for value in values)

    def config(self, values: Mapping[str, Any], changes: Mapping[str, Any] = {}) -> TrainConfig:
        """The experiment at a point of the space."""
        return decode_config(self.base.tree(), {**values, **changes})


def available_recipes() -> list[str]:
    """Names of the recipes that come with the project."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """The file of a shipped recipe's name or of a path; ConfigError names the nearest."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.parent != Path():
        if not path.is_file():
            raise ConfigError(f"recipe {name}: there is no such file.")
        return path
    if name not in available_recipes():
        raise ConfigError(
            f"{not_a_choice('recipe', name, available_recipes())}. Or give a path to a YAML file."
        )
    return RECIPES / f"{name}.yaml"


def load_recipe(name: str, changes: Mapping[str, Any], data: str | None = None) -> Recipe:
    """Read a recipe, put the user's dotted `changes` in, and check all of it.

    A change of `budget.*`, `asha.*`, `objective.*` or `promotion.*` is the recipe's own; any other
    path is the experiment's and is no longer searched. `data` swaps the recipe's data for a folder.
    """
    path = find_recipe(name)
    tree = {"name": path.stem, **read_tree(path)}
    base = _mapping(tree, "base")
    if data is not None:
        base["data"] = {"kind": "folder", "root": data}
    own = {p: v for p, v in changes.items() if p.split(".")[0] in _OWN}
    fixed = {p: v for p, v in changes.items() if p not in own}
    tree = override(Recipe, tree, own)
    space = _mapping(tree, "space")
    constants = _conditional(space, fixed)
    settled = {p: v for p, v in fixed.items() if p not in constants}
    tree["base"] = decode_config(base, settled, "base").tree()
    tree["space"] = {
        p: constants.get(p, dimension) for p, dimension in space.items() if p not in settled
    } | constants
    tree["points"] = _points_without(tree.get("points") or [], fixed)
    recipe: Recipe = decode(Recipe, tree)
    recipe = recipe.model_copy(update={"space": _reachable(recipe)})
    check(recipe)
    return recipe


def check(recipe: Recipe) -> None:
    """Every path exists, every value suits its path, every first point lies in the space.

    Raises ConfigError naming the faults. A sample of whole points is decoded too, so that what
    does not go together is found before a trial is.
    """
    for path, dimension in recipe.space.items():
        fields_at(TrainConfig, path)
        for other in dimension.when:
            fields_at(TrainConfig, other)
        _check_values(recipe, path, dimension)
    search_order(recipe.space)
    for number, point in enumerate(recipe.points, start=1):
        _check_point(recipe, number, point)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(_PROBES if recipe.space else 0):
        values = suggest(recipe.space, study.ask(), recipe.fixed_values())
        try:
            recipe.config(values)
        except ConfigError as error:
            raise ConfigError(f"space: {_describe(values)} do not go together: {error}") from None
    if recipe.asha.enabled:
        _check_stopping(recipe)
    for batch_size in _possible(recipe, "batch_size"):
        for accumulation in _possible(recipe, "accumulation"):
            require_even_shares(batch_size, accumulation, recipe.budget.ranks)


def _possible(recipe: Recipe, path: str) -> list[int]:
    """The whole numbers that trials may have at `path`."""
    dimension = recipe.space.get(path)
    if dimension is None:
        return [recipe.fixed_values()[path]]
    if isinstance(dimension, Integer):
        return list(range(dimension.low, dimension.high + 1))
    return dimension.samples()


def _check_stopping(recipe: Recipe) -> None:
    """Early stopping must judge trials when they can be judged, and beside their equals."""
    grace, epochs = recipe.grace_epochs, recipe.base.epochs
    if grace > epochs:
        raise ConfigError(f"asha.grace_epochs is {grace}, more than all {epochs} epochs.")
    for what, epoch in recipe.settled_by():
        if grace < min(epoch, epochs):
            raise ConfigError(
                f"asha.grace_epochs is {grace}: trials would be stopped for scores from before "
                f"{what} has run its course. Give at least {min(epoch, epochs)}, or null for a "
                "grace that is long enough, or set asha.enabled=false."
            )
    path = recipe.asha.bracket_by
    if path is not None:
        fields_at(TrainConfig, path)
        if path in recipe.space and not isinstance(recipe.space[path], Choice):
            raise ConfigError(
                f"asha.bracket_by: {path} is searched as {recipe.space[path].describe()}. Brackets "
                "need a choice: with a range every trial would be alone in its own."
            )


def _check_values(recipe: Recipe, path: str, dimension: Dimension) -> None:
    """Each of the dimension's values must suit its field, its conditions being met."""
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


def _mapping(tree: Tree, key: str) -> Tree:
    value = tree.get(key) or {}
    if not isinstance(value, dict):
        raise ConfigError(f"{key}: expected keys and values, got {value!r}.")
    return dict(value)


def _conditional(space: Tree, fixed: Mapping[str, Any]) -> dict[str, Tree]:
    """Fixed values that only some searched kinds have: they become choices of one value.

    `loss.gamma=3` while loss.kind is searched holds for the trials whose loss has a gamma.
    """
    constants: dict[str, Tree] = {}
    for path, value in fixed.items():
        kind_path = f"{path.rpartition('.')[0]}.kind"
        if kind_path not in space or kind_path in fixed or path == kind_path:
            continue
        owners = [part for part, _ in fields_at(TrainConfig, path)]
        kinds = [part.model_fields["kind"].default for part in owners]
        constants[path] = {"kind": "choice", "values": [value], "when": {kind_path: kinds}}
    return constants


def _reachable(recipe: Recipe) -> Space:
    """The space without dimensions whose conditions the base already rules out."""
    values = recipe.fixed_values()
    return {
        path: dimension
        for path, dimension in recipe.space.items()
        if holds({p: w for p, w in dimension.when.items() if p not in recipe.space}, values)
        and all(
            _can_hold(recipe.space[p], wanted)
            for p, wanted in dimension.when.items()
            if p in recipe.space
        )
    }


def _can_hold(dimension: Dimension, wanted: Any) -> bool:
    options = wanted if isinstance(wanted, list | tuple) else [wanted]
    return not isinstance(dimension, Choice) or any(value in dimension.values for value in options)


def _points_without(points: list[Tree], fixed: Mapping[str, Any]) -> list[Tree]:
    """The first points less what is fixed now, each only once."""
    kept: list[Tree] = []
    for point in points:
        if not isinstance(point, dict):
            raise ConfigError(f"points: expected keys and values, got {point!r}.")
        left = {path: value for path, value in point.items() if path not in fixed}
        if left and left not in kept:
            kept.append(left)
    return kept


def _describe(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{path}={value}" for path, value in values.items())


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two trees, a line each, by dotted path."""
    before, after = flatten(old), flatten(new)
    return [
        f"{path}: {before.get(path, 'not there')} -> {after.get(path, 'not there')}"
        for path in sorted({*before, *after})
        if before.get(path) != after.get(path)
    ]
