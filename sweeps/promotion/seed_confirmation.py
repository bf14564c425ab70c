"""Whether a choice holds with other seeds: the best trials trained again, as a separate sweep.

The confirming sweep shows how much the choice depends on the seed. Its weights are not promoted.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from sweeps.config.budget import NO_SEARCH
from sweeps.config.checks import check
from sweeps.config.recipe import Recipe
from sweeps.config.space import Choice, holds, search_order
from sweeps.driver.plan import SweepOptions, SweepPlan
from sweeps.promotion.candidates import (
    Candidate,
    SourceSweep,
    config_of,
    full_budget_trials,
    source_sweep,
)
from sweeps.promotion.retraining import (
    earlier_retraining,
    is_finished,
    new_seeds,
    plan_retraining,
    train_again,
)
from sweeps.tracking.run_writer import RunWriter
from sweeps.tracking.store import CONFIRMED, CONFIRMS, TrackingStore
from unetexp.component import flatten
from unetexp.errors import ConfigError
from unetexp.training.config import SCORE, TrainConfig


@dataclass(frozen=True)
class SeedScores:
    """A trial of the sweep, and its scores with new seeds."""

    trial: str
    score: float  # in the sweep, with the sweep's seed
    scores: Mapping[int, float]  # best score by new seed; without those that failed

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores.values()) if self.scores else math.nan

    def describe(self) -> str:
        """Mean and spread, in a sentence."""
        if not self.scores:
            return f"trial {self.trial}: every training failed"
        values = sorted(self.scores.values())
        text = f"trial {self.trial}: mean {self.mean:.4f}"
        if len(values) > 1:
            text += (
                f", standard deviation {statistics.stdev(values):.4f}, "
                f"{values[0]:.4f} to {values[-1]:.4f}"
            )
        return f"{text} ({self.score:.4f} in the sweep)"


@dataclass(frozen=True)
class Confirmation:
    """The best trials of a sweep with new seeds, the chosen one first."""

    sweep: str  # the confirming one
    seeds: tuple[int, ...]
    trials: tuple[SeedScores, ...]
    metric: str = SCORE  # of the scores

    def describe(self) -> list[str]:
        """The result: a heading, one line per trial, and the verdict."""
        count = len(self.seeds)
        seeds = f"{count} new seed{'s' if count > 1 else ''}"
        head = f"Best {self.metric} over {seeds} (sweep {self.sweep})"
        return [f"{head}:", *(trial.describe() for trial in self.trials), self.verdict()]

    def verdict(self) -> str:
        """Whether the sweep's choice is confirmed, in a sentence or two."""
        chosen, *others = self.trials
        scored = [trial for trial in others if trial.scores]
        if not chosen.scores:
            return f"The choice of trial {chosen.trial} is not confirmed: all its trainings failed."
        if not scored:
            return (
                "One trial alone cannot confirm a choice. Its spread is the effect of the seed; a "
                "mean below its score in the sweep is usual, because it was chosen as the best."
            )
        runner_up = max(scored, key=lambda trial: trial.mean)
        gap = chosen.mean - runner_up.mean
        shared = [seed for seed in chosen.scores if seed in runner_up.scores]
        ahead = sum(chosen.scores[seed] > runner_up.scores[seed] for seed in shared)
        progress = f"with {ahead} of {len(shared)} seeds"
        if gap > 0 and ahead == len(shared) > 1:
            return (
                f"The choice of trial {chosen.trial} is confirmed: {gap:.4f} above trial "
                f"{runner_up.trial} on average, and ahead {progress}."
            )
        if gap < 0 and ahead == 0 and len(shared) > 1:
            return (
                f"The choice of trial {chosen.trial} is not confirmed: trial {runner_up.trial} is "
                f"{-gap:.4f} above it on average, and ahead with every seed."
            )
        return (
            f"The choice of trial {chosen.trial} is neither confirmed nor refuted: it is "
            f"{abs(gap):.4f} {'above' if gap >= 0 else 'below'} trial {runner_up.trial} on average "
            f"and ahead {progress}, which may be due to the seed."
        )


def confirm(
    store: TrackingStore,
    source: SourceSweep,
    trials: Sequence[Candidate],
    seeds: int,
    options: SweepOptions,
    console: Console,
) -> Confirmation:
    """Train each of `trials` again with `seeds` new seeds, with Ray, as a separate sweep.

    One that an earlier command began, or finished, is not trained twice.
    `options` name the GPUs, the store and the storage. Raises KeyboardInterrupt at a signal, once
    the runs are closed, and UnetexpError where nothing could be trained.
    """
    configs = [config_of(store, trial) for trial in trials]
    recipe = confirmation_recipe(source.recipe, configs, seeds)
    tags = {CONFIRMS: source.name}
    earlier = earlier_retraining(store, recipe, tags, options)
    if earlier is None:
        plan = plan_retraining(store, source, recipe, "confirm", tags, options)
        train_again(plan, console)
    else:
        plan = earlier[0]
        if is_finished(store, plan):
            console.print(f"sweep {plan.name} has trained this already")
        else:
            train_again(plan, console, manifest=earlier[1])
    again = full_budget_trials(store, source_sweep(store, store.sweep_run(plan.name)))
    return _gathered(plan, trials, {trial.trial: trial.score for trial in again})


def confirm_best(
    store: TrackingStore, sweep: str, options: SweepOptions, console: Console
) -> Confirmation | None:
    """The confirmation that the sweep's budget plans; None where no trial had the full budget."""
    source = source_sweep(store, store.sweep_run(sweep))
    trials, budget = full_budget_trials(store, source), source.recipe.budget
    if not trials or not budget.confirm:
        return None
    best = trials[: budget.confirm]
    found = confirm(store, source, best, budget.confirm_seeds, options, console)
    run = RunWriter(store.client, source.run.info.run_id)
    run.set_tags({CONFIRMED: "\n".join(found.describe())})
    return found


def confirmation_recipe(recipe: Recipe, configs: Sequence[TrainConfig], seeds: int) -> Recipe:
    """`recipe` with each config as a point, once with each new seed, and nothing stopped early."""
    taken = {config.seed for config in configs} | {recipe.base.seed}
    new = new_seeds(recipe.base.seed, taken, seeds)
    points = tuple({**_searched(recipe, c), "seed": seed} for c in configs for seed in new)
    changed = recipe.model_copy(
        update={
            "description": f"{len(configs)} settings of {recipe.name} with {seeds} new seeds.",
            "space": {**recipe.space, "seed": Choice(values=new)},
            "points": points,
            "budget": recipe.budget.model_copy(update={"trials": len(points), **NO_SEARCH}),
            "asha": recipe.asha.model_copy(update={"enabled": False}),
        }
    )
    check(changed)
    return changed


def require_enough(trials: Sequence[Candidate], wanted: int) -> None:
    """ConfigError unless there are `wanted` trials to confirm."""
    if wanted > len(trials):
        raise ConfigError(
            f"--confirm {wanted}: the sweep has {len(trials)} trials that had the full budget. "
            f"Ask for at most {len(trials)}."
        )


def _searched(recipe: Recipe, config: TrainConfig) -> dict[str, object]:
    """The values that `config` has for the dimensions of the space that apply to it."""
    have, fixed = flatten(config.tree()), recipe.fixed_values()
    values: dict[str, object] = {}
    for path in search_order(recipe.space):
        if holds(recipe.space[path].when, {**fixed, **values}):
            values[path] = have[path]
    return values


def _gathered(
    plan: SweepPlan, trials: Sequence[Candidate], scores: Mapping[str, float]
) -> Confirmation:
    """The scores by trial and seed: each point was one trial, in the same order."""
    seeds = plan.recipe.space["seed"].samples()
    rows = []
    for number, trial in enumerate(trials):
        ids = {seed: f"{number * len(seeds) + i:04d}" for i, seed in enumerate(seeds)}
        reached = {seed: scores[id_] for seed, id_ in ids.items() if id_ in scores}
        rows.append(SeedScores(trial.trial, trial.score, reached))
    metric = plan.recipe.goals.score
    return Confirmation(plan.name, tuple(seeds), tuple(rows), metric)
