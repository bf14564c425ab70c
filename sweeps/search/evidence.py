"""Trials as points of a space that has grown, or narrowed, since they were proposed.

A trial counts where the space holds its very experiment: a setting that was not searched then has
the value that the trial trained with. One outside, as of a narrowed range, stays in the table and
in the rungs of early stopping, but the search is not told of it: a sampler's model has no place for
a value that it may never propose.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import optuna

from sweeps.config.recipe import Recipe
from sweeps.config.space import suggest
from unetexp.component import flatten


def in_space(recipe: Recipe, values: Mapping[str, Any]) -> dict[str, Any] | None:
    """The values that the recipe's space has for the experiment of `values`; None: none."""
    trained = recipe.config(values)
    drawn = _drawn(recipe, flatten(trained.tree()))
    if drawn is None or recipe.config(drawn) != trained:
        return None
    return drawn


def _drawn(recipe: Recipe, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a number outside its range is noticed below
        try:
            fixed = optuna.trial.FixedTrial(dict(settings))
            drawn = suggest(recipe.space, fixed, recipe.fixed_values())
        except ValueError:  # no such choice, or no such setting
            return None
    return drawn if all(recipe.space[p].admits(value) for p, value in drawn.items()) else None
