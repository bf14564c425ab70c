"""What a new sweep can learn from the trials of an earlier one.

A trial of the other sweep is used where the spaces fit: the value of every setting that this sweep
searches lies in its dimension, and every other setting that the other sweep searched has the value
that is fixed in this one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from sweeps.config.recipe import Recipe
from sweeps.config.space import suggest
from sweeps.state.ledger import Event, Ledger


def known_trials(recipe: Recipe, other: Ledger) -> Iterator[dict[str, Any]]:
    """The other sweep's completed and stopped trials that fit, as fields of `known` events."""
    scores: dict[str, dict[int, float]] = {}
    for event in other.of("epoch"):
        scores.setdefault(event["trial"], {})[event["epoch"]] = event["metrics"]["val/miou"]
    values = {event["trial"]: event["values"] for event in other.of("trial")}
    for event in other.of("end"):
        trial, reason = event["trial"], event["reason"]
        if reason in ("completed", "asha") and _fits(recipe, values[trial]):
            searched = {p: v for p, v in values[trial].items() if p in recipe.space}
            curve = sorted(scores.get(trial, {}).items())
            yield {"values": searched, "reason": reason, "curve": curve}


def known_trial(recipe: Recipe, event: Event) -> FrozenTrial:
    """A `known` event as a trial that Optuna's study can hold."""
    drawn = optuna.trial.FixedTrial(event["values"])
    suggest(recipe.space, drawn, recipe.fixed_values())
    curve = {epoch: score for epoch, score in event["curve"] if math.isfinite(score)}
    completed = event["reason"] == "completed" and bool(curve)
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE if completed else TrialState.PRUNED,
        params=drawn.params,
        distributions=drawn.distributions,
        value=max(curve.values()) if completed else None,
        intermediate_values=curve,
    )


def _fits(recipe: Recipe, values: dict[str, Any]) -> bool:
    fixed = recipe.fixed_values()
    if any(p not in recipe.space and fixed.get(p, v) != v for p, v in values.items()):
        return False
    try:
        drawn = suggest(recipe.space, optuna.trial.FixedTrial(values), fixed)
    except ValueError:  # a setting is missing
        return False
    return all(recipe.space[path].admits(value) for path, value in drawn.items())
