"""What is recorded: configurations that cover the recipe's space evenly, some with more seeds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from sweeps.config.loading import load_recipe
from sweeps.config.quasi_random import QuasiRandomSampler
from sweeps.config.recipe import Recipe
from sweeps.config.space import search_order, suggest

RECIPE = Path(__file__).with_name("recipe.yaml")
REPEAT_EVERY = 8  # each 8th configuration is trained with further seeds


@dataclass(frozen=True)
class Run:
    """One training: configuration number `config` of the sequence, on one set, with one seed."""

    set: str
    config: int
    seed: int
    values: dict[str, Any]  # dotted path -> searched value

    @property
    def key(self) -> tuple[str, int, int]:
        return Path(self.set).name, self.config, self.seed


def recipe_of(root: str, changes: dict[str, Any]) -> Recipe:
    """The recorded experiment on a set: mni152, or the folder of a data set."""
    recipe = load_recipe(str(RECIPE), changes)
    if root == "mni152":
        return recipe
    return load_recipe(str(RECIPE), {**changes, "data.kind": "folder", "data.root": root})


def experiment_of(recipe: Recipe) -> dict[str, Any]:
    """What all runs of a record share: the space, the base without the data, the epochs."""
    tree = recipe.tree()
    base = {name: value for name, value in tree["base"].items() if name != "data"}
    return {"space": tree["space"], "base": base, "epochs": recipe.base.epochs}


def drawn(recipe: Recipe, count: int) -> list[dict[str, Any]]:
    """The first `count` points of the sequence: a longer one begins with the same points."""
    sampler = QuasiRandomSampler(search_order(recipe.space), seed=0)
    study = optuna.create_study(sampler=sampler)
    return [suggest(recipe.space, study.ask(), recipe.fixed_values()) for _ in range(count)]


def runs(sets: list[str], recipe: Recipe, configs: int, seeds: int) -> Iterator[Run]:
    """Every run, the sets in turn, so that any part of the table from its start is balanced."""
    for number, values in enumerate(drawn(recipe, configs)):
        repeated = seeds if number % REPEAT_EVERY == 0 else 1
        for seed, root in itertools.product(range(repeated), sets):
            yield Run(root, number, seed, values)
