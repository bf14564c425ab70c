"""Loading a recipe: read its file, apply the changes of the command line, check the result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sweeps
from sweeps.config.checks import check
from sweeps.config.gates import is_limit, with_limits
from sweeps.config.recipe import Recipe
from sweeps.config.search import Tpe
from sweeps.config.space import Choice, Dimension, Space, holds
from unetexp.component import Tree, decode, fields_at, flatten, override
from unetexp.data.sources.recognised import recognised_tree
from unetexp.errors import ConfigError, not_a_choice
from unetexp.training.config import TrainConfig, decode_config, read_tree

RECIPES = Path(str(sweeps.__file__)).parent / "recipes"
_OWN = ("budget", "search", "asha", "objective", "promotion")  # a recipe's own sections


def available_recipes() -> list[str]:
    """Names of the recipes that come with the project."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """The file of a shipped recipe's name, or of a path; ConfigError names the nearest name."""
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


def lasting_name(recipe: str) -> str:
    """The recipe as it is found again from another folder: its name, or its absolute path."""
    return recipe if recipe in available_recipes() else str(Path(recipe).absolute())


def load_recipe(name: str, changes: Mapping[str, Any], data: str | None = None) -> Recipe:
    """Read a recipe, apply the user's dotted `changes`, and check all of it.

    A change of `budget.*`, `search.*`, `asha.*`, `objective.*` or `promotion.*` is the recipe's
    own; any other path is the experiment's and is no longer searched. `data` replaces the recipe's
    data: a folder, a table or a kind. Raises DataError where it can be read as two kinds.
    """
    path = find_recipe(name)
    tree = {"name": path.stem, "search": Tpe().tree(), **read_tree(path)}
    base = _mapping(tree, "base")
    if data is not None:
        base["data"] = _data_at(data, _mapping(base, "data"), changes)
    own = {p: v for p, v in changes.items() if p.split(".")[0] in _OWN}
    fixed = _with_kinds(base, {p: v for p, v in changes.items() if p not in own})
    limits = {p: v for p, v in own.items() if is_limit(p)}
    tree = override(Recipe, tree, {p: v for p, v in own.items() if p not in limits})
    tree = with_limits(tree, limits)
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


def _data_at(place: str, known: Tree, changes: Mapping[str, Any]) -> Tree:
    """The source that `place` names, with the recipe's settings that its kind has too.

    Where the recipe's files lie is none of them: a table's paths would begin there.
    """
    found = recognised_tree(place, changes)
    elsewhere = {name: value for name, value in known.items() if name not in ("root", "path")}
    kept = override(TrainConfig, {"data": elsewhere}, {"data.kind": found["kind"]})["data"]
    return {**kept, **found}


def _mapping(tree: Tree, key: str) -> Tree:
    value = tree.get(key) or {}
    if not isinstance(value, dict):
        raise ConfigError(f"{key}: expected keys and values, got {value!r}.")
    return dict(value)


def _conditional(space: Tree, fixed: Mapping[str, Any]) -> dict[str, Tree]:
    """Fixed values of settings that only some searched kinds have, as choices of one value.

    `loss.gamma=3` while loss.kind is searched applies to the trials whose loss has a gamma.
    """
    constants: dict[str, Tree] = {}
    for path, value in fixed.items():
        kind_path = f"{path.rpartition('.')[0]}.kind"
        if kind_path not in space or kind_path in fixed or path == kind_path:
            continue
        owners = [part for part, _ in fields_at(TrainConfig, path)]
        kinds = [part.model_fields["kind"].default for part in owners]
        if len(kinds) == len(fields_at(TrainConfig, kind_path)):
            continue
        constants[path] = {"kind": "choice", "values": [value], "when": {kind_path: kinds}}
    return constants


def _with_kinds(base: Tree, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """The fixed values, with the kind of those that belong to one: `encoder.name` has a family.

    Of several kinds that know the value, the recipe's own is taken.
    """
    found = dict(fixed)
    for path, value in fixed.items():
        parent, _, name = path.rpartition(".")
        kind_path = f"{parent}.kind"
        owners = [part for part, _ in fields_at(TrainConfig, path) if name in part.own_fields]
        kinds = [p.model_fields["kind"].default for p in owners if p.allows(name, value)]
        if kinds and kind_path not in found:
            own = flatten(base).get(kind_path)
            found[kind_path] = own if own in kinds else kinds[0]
    return found


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
    """The first points without the settings that are fixed now, each point once."""
    kept: list[Tree] = []
    for point in points:
        if not isinstance(point, dict):
            raise ConfigError(f"points: expected keys and values, got {point!r}.")
        left = {path: value for path, value in point.items() if path not in fixed}
        if left and left not in kept:
            kept.append(left)
    return kept
