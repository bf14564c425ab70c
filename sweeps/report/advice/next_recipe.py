"""A recipe for the next sweep: the same one, with what the trials clearly say about its space."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import yaml

from sweeps.config.checks import check
from sweeps.config.recipe import Recipe
from sweeps.config.space import Choice, Dimension, Integer, LogUniform, holds, search_order
from sweeps.report.advice.dimensions import Advice, Drop, Widen
from sweeps.report.sweep_data import SweepData
from unetexp.component import Tree, decode
from unetexp.errors import ConfigError
from unetexp.training.config import TrainConfig, decode_config

_SHARES = (0.5, 0.25, 0.125)  # of a range, by which it is widened; the first that is allowed


@dataclass(frozen=True)
class NextRecipe:
    """The recipe, and what is different in it and why, in sentences."""

    recipe: Recipe
    changes: tuple[str, ...]


def next_recipe(recipe: Recipe, sweep_data: SweepData, found: Sequence[Advice]) -> NextRecipe:
    """`recipe`, changed by what was `found`; the best full-budget trial is its first point.

    It is one that a sweep takes: what would not be allowed is left as it was, and said.
    """
    changes: list[str] = []
    for each in found:
        match each:
            case Widen():
                recipe, what = _widened(recipe, each)
            case Drop():
                recipe, what = _without(recipe, each)
            case _:
                what = f"{each.sentence} Left as it was."
        changes.append(what)
    point = best_point(recipe, sweep_data)
    recipe = recipe.model_copy(update={"points": (point,) if point else ()})
    if point:
        changes.append("The first trial has the settings of the best one.")
    check(recipe)
    return NextRecipe(recipe, tuple(changes))


def best_point(recipe: Recipe, sweep_data: SweepData) -> dict[str, Any]:
    """The searched values of the best full-budget trial, where they are in the recipe's space."""
    full = sweep_data.scored[sweep_data.scored["full_budget"]]
    point: dict[str, Any] = {}
    if full.empty:
        return point
    for path in search_order(recipe.space):
        dimension = recipe.space[path]
        if path not in full or not holds(dimension.when, {**recipe.fixed_values(), **point}):
            continue
        value = _value_of(dimension, full.iloc[0][path])
        if dimension.admits(value):
            point[path] = value
    return point


def as_yaml(made: NextRecipe, header: Sequence[str]) -> str:
    """The recipe's file without what is at its default; header and changes are comments."""
    comments = [*header, *(f"- {change}" for change in made.changes)]
    tree = _without_defaults(made.recipe.tree(), _defaults(made.recipe))
    tree["base"] = _without_defaults(made.recipe.base.tree(), TrainConfig().tree())
    assert decode(Recipe, tree) == made.recipe
    text: str = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    return "".join(f"# {line}\n" for line in comments) + text


def _widened(recipe: Recipe, found: Widen) -> tuple[Recipe, str]:
    dimension = recipe.space[found.path]
    for share in _SHARES:
        bound = _moved(dimension, found.side, share)
        wider = dimension.model_copy(update={found.side: bound})
        changed = _with(recipe, {**recipe.space, found.path: wider})
        try:
            check(changed)
        except ConfigError:
            continue
        return changed, f"{found.sentence} It now ends at {bound:g}."
    return recipe, f"{found.sentence} Left as it was: no value beyond is allowed."


def _moved(dimension: Any, side: str, share: float) -> float:
    """The bound of a range that is a share wider, in orders of magnitude if it is log."""
    low, high = dimension.low, dimension.high
    outwards = share if side == "high" else -share
    bound: float = getattr(dimension, side)
    if isinstance(dimension, LogUniform):
        return _rounded(bound * math.exp(outwards * math.log(high / low)), bound)
    moved = bound + outwards * (high - low)
    if isinstance(dimension, Integer):
        return int(math.ceil(moved) if side == "high" else math.floor(moved))
    return _rounded(moved, bound)


def _rounded(value: float, before: float) -> float:
    """The value in as few digits as leave nine tenths of its distance from `before`."""
    rounded = (float(f"{value:.{digits}g}") for digits in range(1, 17))
    return next(each for each in rounded if abs(each - value) <= 0.1 * abs(value - before))


def _without(recipe: Recipe, found: Drop) -> tuple[Recipe, str]:
    """The recipe without the dropped choices; a setting that is left with one value is fixed."""
    dimension = recipe.space[found.path]
    assert isinstance(dimension, Choice)
    left = tuple(value for value in dimension.values if value not in found.choices)
    space = {path: other for path, other in recipe.space.items() if path != found.path}
    if len(left) > 1 or dimension.when:
        fewer = dimension.model_copy(update={"values": left})
        changed = _with(recipe, {**recipe.space, found.path: fewer})
        return changed, f"{found.sentence} Left: {', '.join(map(str, left))}."
    base = decode_config(recipe.base.tree(), {found.path: left[0]})
    space = {p: d for p, d in space.items() if _can_hold(d, found.path, left[0])}
    changed = _with(recipe.model_copy(update={"base": base}), space)
    return changed, f"{found.sentence} It is fixed to {left[0]}."


def _can_hold(dimension: Dimension, path: str, value: Any) -> bool:
    return path not in dimension.when or holds({path: dimension.when[path]}, {path: value})


def _with(recipe: Recipe, space: Mapping[str, Dimension]) -> Recipe:
    """The recipe with another space, and without first points that may not be in it."""
    return recipe.model_copy(update={"space": dict(space), "points": ()})


def _value_of(dimension: Dimension, cell: Any) -> Any:
    """A cell of the trials' table as a value of the dimension."""
    if pd.isna(cell):
        return None
    if isinstance(dimension, Choice):
        return next((value for value in dimension.values if str(value) == str(cell)), None)
    return int(cell) if isinstance(dimension, Integer) else float(cell)


def _defaults(recipe: Recipe) -> Tree:
    return Recipe(name=recipe.name, base=recipe.base).tree() | {"name": None, "base": None}


def _without_defaults(tree: Tree, defaults: Tree) -> Tree:
    return {key: value for key, value in tree.items() if value != defaults.get(key)}
