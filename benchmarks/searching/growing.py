"""Sweeps that begin with a half of one dimension: what then happens when the space grows.

Either the sweep grows, its trials valid evidence where the whole space holds them, or a fresh one
starts in the whole space. Which half of which dimension a user has begun with is chance, by the
replay's seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from benchmarks.searching.landscape import Landscape
from benchmarks.searching.replay import MemoryLedger, Replayed, replay
from sweeps.config.recipe import Recipe
from sweeps.config.space import Choice, Dimension, LogUniform
from sweeps.driver.growth import growth_of
from sweeps.search.controller import SweepController

GROWS, BEGINS_AGAIN = "half a dimension, grown half way", "half a dimension, begun again half way"
GROWING: Mapping[str, bool] = {GROWS: True, BEGINS_AGAIN: False}  # whether trials stay evidence


def replay_growing(
    landscape: Landscape, devices: int, device_s: float, seed: int, *, keeps: bool
) -> Replayed:
    """The first half of the time in a half of the space, the second in all of it."""
    narrow, ledger = halved(landscape.recipe, seed), MemoryLedger()
    first = SweepController(narrow, seed, ledger, at_once=devices)
    begun = replay(first, landscape, devices, device_s / 2, seed)
    ledger.now_s = device_s / 2 / devices  # epochs that were under way are lost, as by a kill
    if keeps:
        growth = growth_of(narrow, landscape.recipe, ledger.events, landscape.recipe.points)
        ledger.append("grown", **growth.record())
    else:
        ledger.events.clear()
    second = SweepController(landscape.recipe, seed, ledger, at_once=devices)
    return replay(second, landscape, devices, device_s, seed, begun)


def halved(recipe: Recipe, seed: int) -> Recipe:
    """The recipe with a half of one dimension, both by chance."""
    rng = np.random.default_rng((seed, 1))
    path = str(rng.choice(list(recipe.space)))
    space = {**recipe.space, path: _half(recipe.space[path], rng)}
    return recipe.model_copy(update={"space": space})


def _half(dimension: Dimension, rng: np.random.Generator) -> Dimension:
    if isinstance(dimension, Choice):
        places = rng.permutation(len(dimension.values))[: math.ceil(len(dimension.values) / 2)]
        kept = tuple(dimension.values[place] for place in sorted(places))
        return dimension.model_copy(update={"values": kept})
    low, high = dimension.low, dimension.high
    middle = math.sqrt(low * high) if isinstance(dimension, LogUniform) else (low + high) / 2
    ends = {"high": middle} if rng.random() < 0.5 else {"low": middle}
    return dimension.model_copy(update=ends)
