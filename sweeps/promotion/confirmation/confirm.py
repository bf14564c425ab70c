"""Whether a choice holds with other seeds: the best trials trained again, as a separate sweep.

The confirming sweep shows how much the choice depends on the seed. Its weights are not promoted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import partial

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
    open_data,
    source_sweep,
)
from sweeps.promotion.confirmation.outcome import Confirmation, SeedScores
from sweeps.promotion.confirmation.racing import Race, raced
from sweeps.promotion.final_training.validation import Validation
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
from unetexp.compute.device import pick_device
from unetexp.errors import ConfigError
from unetexp.tracking.locate import locate
from unetexp.training.config import TrainConfig


def confirm(
    store: TrackingStore,
    source: SourceSweep,
    trials: Sequence[Candidate],
    seeds: int,
    options: SweepOptions,
    console: Console,
    validation: Validation | None = None,
) -> Confirmation:
    """Train each of `trials` again with `seeds` new seeds, with Ray, as a separate sweep.

    With the `validation` images it is a race, a sweep a seed: trials that are clearly behind on
    them get no further seeds. What an earlier command began, or finished, is not trained twice.
    `options` name the GPUs, the store and the storage. Raises KeyboardInterrupt at a signal, once
    the runs are closed, and UnetexpError where nothing could be trained.
    """
    again = _Repeats(store, source, trials, options, console)
    numbers = confirmation_seeds(source.recipe, again.configs.values(), seeds)
    dropped: dict[str, str] = {}
    if validation is None:
        again.train(list(again.configs), numbers)
    else:
        race = Race(validation.compare)
        train = partial(again.train_racing, race, validation)
        dropped = raced(list(again.configs), numbers, train, race)
    rows = [
        SeedScores(t.trial, t.score, again.scores[t.trial], dropped.get(t.trial, ""))
        for t in trials
    ]
    used = tuple(seed for seed in numbers if any(seed in row.scores for row in rows))
    return Confirmation(", ".join(again.sweeps), used, tuple(rows), source.recipe.goals.score)


def confirm_best(
    store: TrackingStore, sweep: str, options: SweepOptions, console: Console
) -> Confirmation | None:
    """The confirmation that the sweep's budget plans; None where no trial had the full budget."""
    source = source_sweep(store, store.sweep_run(sweep))
    trials, budget = full_budget_trials(store, source), source.recipe.budget
    if not trials or not budget.confirm:
        return None
    best, validation = trials[: budget.confirm], None
    if budget.race:
        device = pick_device("cpu" if options.gpus == 0 else "auto")
        validation = Validation(open_data(source), source.goals.score, device)
    found = confirm(store, source, best, budget.confirm_seeds, options, console, validation)
    run = RunWriter(store.client, source.run.info.run_id)
    run.set_tags({CONFIRMED: "\n".join(found.describe())})
    return found


def confirmation_seeds(
    recipe: Recipe, configs: Iterable[TrainConfig], count: int
) -> tuple[int, ...]:
    """The first `count` seeds that neither the sweep nor the configs were trained with."""
    taken = {config.seed for config in configs} | {recipe.base.seed}
    return new_seeds(recipe.base.seed, taken, count)


def confirmation_recipe(
    recipe: Recipe, configs: Sequence[TrainConfig], seeds: Sequence[int], *, keeps_all: bool = False
) -> Recipe:
    """`recipe` with each config as a point, once with each seed, and nothing stopped early.

    All models are kept where they are compared.
    """
    points = tuple({**_searched(recipe, c), "seed": seed} for c in configs for seed in seeds)
    kept = {"keep_models": "all"} if keeps_all else {}
    budget = {"trials": len(points), **NO_SEARCH, **kept}
    changed = recipe.model_copy(
        update={
            "description": f"{len(configs)} settings of {recipe.name} with {len(seeds)} new seeds.",
            "space": {**recipe.space, "seed": Choice(values=tuple(seeds))},
            "points": points,
            "budget": recipe.budget.model_copy(update=budget),
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


class _Repeats:
    """The trials' settings, trained again: sweeps by name, scores by trial and seed."""

    def __init__(
        self,
        store: TrackingStore,
        source: SourceSweep,
        trials: Sequence[Candidate],
        options: SweepOptions,
        console: Console,
    ) -> None:
        self._store, self._source, self._options, self._console = store, source, options, console
        self.configs = {trial.trial: config_of(store, trial) for trial in trials}
        self.scores: dict[str, dict[int, float]] = {trial: {} for trial in self.configs}
        self.sweeps: list[str] = []

    def train(
        self, trials: Sequence[str], seeds: Sequence[int], *, keeps_all: bool = False
    ) -> dict[tuple[str, int], Candidate]:
        """The completed trainings of each trial with each seed, in one sweep."""
        configs = [self.configs[trial] for trial in trials]
        recipe = confirmation_recipe(self._source.recipe, configs, seeds, keeps_all=keeps_all)
        plan = self._sweep(recipe)
        self.sweeps.append(plan.name)
        found = _by_point(self._store, plan, trials, seeds)
        for (trial, seed), model in found.items():
            self.scores[trial][seed] = model.score
        return found

    def train_racing(
        self, race: Race, validation: Validation, trials: list[str], seed: int
    ) -> None:
        """One seed of a race."""
        for (trial, _), model in self.train(trials, [seed], keeps_all=True).items():
            race.trained(trial, seed, validation(locate(model.run_id, self._store.uri)))

    def _sweep(self, recipe: Recipe) -> SweepPlan:
        """The sweep of `recipe`, run to its end: a new one, or one that was begun earlier."""
        tags = {CONFIRMS: self._source.name}
        earlier = earlier_retraining(self._store, recipe, tags, self._options)
        if earlier is None:
            plan = plan_retraining(
                self._store, self._source, recipe, "confirm", tags, self._options
            )
            train_again(plan, self._console)
            return plan
        plan, manifest = earlier
        if is_finished(self._store, plan):
            self._console.print(f"sweep {plan.name} has trained this already")
        else:
            train_again(plan, self._console, manifest=manifest)
        return plan


def _by_point(
    store: TrackingStore, plan: SweepPlan, trials: Sequence[str], seeds: Sequence[int]
) -> dict[tuple[str, int], Candidate]:
    """The completed trainings by trial and seed: each point was one trial, in the same order."""
    sweep = source_sweep(store, store.sweep_run(plan.name))
    found = {candidate.trial: candidate for candidate in full_budget_trials(store, sweep)}
    points = enumerate(itertools.product(trials, seeds))
    return {point: found[id_] for i, point in points if (id_ := f"{i:04d}") in found}
