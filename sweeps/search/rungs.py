"""A recipe's early stopping: rungs in epochs, or in time."""

from __future__ import annotations

from sweeps.config.budget import parse_duration
from sweeps.config.recipe import Recipe
from sweeps.search.asha import AshaRungs, StoppingRule
from sweeps.search.time_rungs import TimeRungs


def rungs_of(recipe: Recipe) -> StoppingRule:
    """The recipe's early stopping."""
    epochs, asha = recipe.base.epochs, recipe.asha
    if asha.grace_time is None:
        return AshaRungs(recipe.grace_epochs, epochs, asha.reduction_factor, recipe.goals)
    settled = max((epoch for _, epoch in recipe.settled_by()), default=1)
    grace_epochs = asha.grace_epochs or settled
    return TimeRungs(parse_duration(asha.grace_time), grace_epochs, epochs, asha.reduction_factor)
