"""What a new sweep can learn from the trials of an earlier one.

A trial of the other sweep is used where the spaces fit: the value of every setting that this sweep
searches lies in its dimension, and every other setting that the other sweep searched has the value
that is fixed in this one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from sweeps.config.recipe import Recipe
from sweeps.config.space import suggest
from sweeps.state.ledger import Event, Ledger
from sweeps.state.progress import SweepProgress

MISSING_EPOCHS = "missing_epochs"  # the constraint that a stopped trial of several goals breaks


def known_trials(recipe: Recipe, other: Ledger) -> Iterator[dict[str, Any]]:
    """The other sweep's completed and stopped trials that fit, as fields of `known` events."""
    goals, scores = recipe.goals, defaultdict[str, dict[int, float]](dict)
    progress = SweepProgress(trials=0, epochs=0, at_once=1, goals=goals)
    for event in other.events:
        trial = progress.apply(event)
        if trial is None:
            continue
        if event["event"] == "epoch":
            scores[trial.id][trial.epoch] = trial.score
        if event["event"] != "end" or event["reason"] not in ("completed", "asha"):
            continue
        if fits(recipe, trial.values):
            searched = {p: v for p, v in trial.values.items() if p in recipe.space}
            known = {"reason": event["reason"], "curve": sorted(scores[trial.id].items())}
            further = {"point": trial.point} if goals.several else {}
            yield {"values": searched, **known, **further}


def known_trial(recipe: Recipe, event: Event) -> FrozenTrial:
    """A `known` event as a trial that Optuna's study can hold."""
    drawn = optuna.trial.FixedTrial(event["values"])
    suggest(recipe.space, drawn, recipe.fixed_values())
    curve = {epoch: score for epoch, score in event["curve"] if math.isfinite(score)}
    if recipe.goals.several:
        return _of_several(recipe, event, drawn)
    completed = event["reason"] == "completed" and bool(curve)
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE if completed else TrialState.PRUNED,
        params=drawn.params,
        distributions=drawn.distributions,
        value=max(curve.values()) if completed else None,
        intermediate_values=curve,
    )


def _of_several(recipe: Recipe, event: Event, drawn: optuna.trial.FixedTrial) -> FrozenTrial:
    """As the controller tells its own; a trial that lacks an objective's value counts as failed."""
    scored = all(map(math.isfinite, event["point"]))
    missing = recipe.base.epochs - max((epoch for epoch, _ in event["curve"]), default=0)
    stopped = event["reason"] != "completed"
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE if scored else TrialState.FAIL,
        params=drawn.params,
        distributions=drawn.distributions,
        values=event["point"] if scored else None,
        constraints={MISSING_EPOCHS: max(1, missing)} if stopped else None,
    )


def fits(recipe: Recipe, values: Mapping[str, Any]) -> bool:
    """Whether the recipe's space holds the values, and its base those that it does not search."""
    fixed = recipe.fixed_values()
    if any(p not in recipe.space and fixed.get(p, v) != v for p, v in values.items()):
        return False
    try:
        drawn = suggest(recipe.space, optuna.trial.FixedTrial(dict(values)), fixed)
    except ValueError:  # a setting is missing
        return False
    return all(recipe.space[path].admits(value) for path, value in drawn.items())
