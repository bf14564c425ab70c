"""Trains the best settings of a sweep to the end, as a sweep of its own, and picks by validation.

A command that was interrupted goes on where it was when it is given again: its sweep is known by
its recipe, which follows from what was asked.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from rich.console import Console

from sweeps.config.gates import Gates
from sweeps.config.recipe import Recipe
from sweeps.driver.plan import SweepOptions, SweepPlan
from sweeps.promotion.candidates import (
    Candidate,
    SourceSweep,
    config_of,
    full_budget_trials,
    source_sweep,
)
from sweeps.promotion.final_training.merging import Mixer, kinds_asked, try_merging
from sweeps.promotion.final_training.outcome import (
    FINAL,
    TRIAL,
    Attempt,
    Contender,
    FinalRun,
    FinalTraining,
    WithVal,
    best,
)
from sweeps.promotion.final_training.settings import (
    TIMES,
    FinalRequest,
    final_recipe,
    lengthened,
    on_val_too,
)
from sweeps.promotion.final_training.validation import Validation
from sweeps.promotion.retraining import (
    earlier_retraining,
    is_finished,
    new_seeds,
    plan_retraining,
    train_again,
)
from sweeps.text import count
from sweeps.tracking.store import FINAL_OF, TrackingStore
from unetexp.data import Dataset
from unetexp.data.with_val import with_val_trained_on
from unetexp.errors import UnetexpError
from unetexp.tracking.locate import locate
from unetexp.training.config import TrainConfig

_MERGED = "merged"  # the folder of ensembles and soups beside a final sweep's trials
_RESULT = "final.result"  # tag of the final sweep's run: what came of it


@dataclass(frozen=True)
class Trained:
    """A sweep of final trainings that is over."""

    plan: SweepPlan
    run_id: str  # of its parent run
    models: tuple[Contender, ...]  # the best first

    @property
    def by_seed(self) -> list[Contender]:
        return sorted(self.models, key=lambda model: model.seed or 0)

    def of(self, seed: int) -> Contender | None:
        """The model that was trained with a seed, if it was completed."""
        return next((model for model in self.models if model.seed == seed), None)


@dataclass(frozen=True)
class FinalTrainer:
    """Trains `trial` of `source` again, as `asked`.

    `flavor` is what will be served, `to_continue` the command that goes on.
    """

    store: TrackingStore
    source: SourceSweep
    trial: Candidate
    asked: FinalRequest
    gates: Gates
    data: Dataset
    device: torch.device
    options: SweepOptions
    console: Console
    flavor: str
    to_continue: str

    @cached_property
    def config(self) -> TrainConfig:
        """The trial's."""
        return config_of(self.store, self.trial)

    @cached_property
    def epochs(self) -> int:
        return self.asked.epochs or TIMES * self.config.epochs

    @cached_property
    def recipe(self) -> Recipe:
        """Of the final sweep. Raises ConfigError for more epochs than a run may have."""
        taken = {self.config.seed, self.source.recipe.base.seed}
        seeds = new_seeds(self.source.recipe.base.seed, taken, self.asked.seeds)
        about = (
            f"The settings of trial {self.trial.trial} of {self.source.name}, trained to the end."
        )
        return final_recipe(self.source.recipe, lengthened(self.config, self.epochs), seeds, about)

    def run(self) -> FinalTraining:
        """Train, try what was asked for, and pick by validation; registers nothing.

        Raises KeyboardInterrupt at a signal, once the runs are closed, and UnetexpError where
        nothing could be trained.
        """
        trained = self._trained(self.recipe, "final")
        own = self._own_model()
        single = best([own, *trained.models])
        picked = single
        attempts: list[Attempt] = []
        if self.asked.merges:
            with self.console.status("ensemble and soup, on the validation split"):
                picked, attempts = try_merging(
                    kinds_asked(ensemble=self.asked.ensemble, soup=self.asked.soup),
                    trained.by_seed,
                    single,
                    title=lambda kind: self._merged_title(kind, len(trained.models)),
                    run_id=trained.run_id,
                    mixer=self._mixer(trained, self.data),
                    validation=Validation(self.data, self.source.goals.score, self.device),
                    gates=self.gates,
                    flavor=self.flavor,
                )
        chosen, with_val = picked, None
        if self.asked.with_val:
            chosen, with_val = self._on_val_too(picked, trained)
        others = [each for each in (picked, single) if each.kind != TRIAL and each is not chosen]
        outcome = FinalTraining(
            sweep=trained.plan.name,
            metric=self.source.goals.score,
            trial=self.trial.trial,
            trial_score=self.trial.score,
            trial_epochs=self.config.epochs,
            epochs=self.epochs,
            runs=tuple(self._runs(trained)),
            attempts=tuple(attempts),
            picked=picked,
            chosen=chosen,
            others=tuple(dict.fromkeys(others)),
            with_val=with_val,
        )
        self.store.client.set_tag(trained.run_id, _RESULT, "\n".join(outcome.describe()))
        return outcome

    def _own_model(self) -> Contender:
        trial = self.trial
        folder = locate(trial.run_id, self.store.uri)
        title, seed = f"trial {trial.trial}", self.config.seed
        return Contender(TRIAL, title, trial.run_id, folder, trial.score, trial.epoch, seed)

    def _runs(self, trained: Trained) -> list[FinalRun]:
        found = []
        for seed in trained.plan.recipe.space["seed"].samples():
            model = trained.of(seed)
            found.append(
                FinalRun(seed, model.score, model.epoch, model.run_id)
                if model
                else FinalRun(seed, math.nan, 0)
            )
        return found

    def _on_val_too(self, picked: Contender, trained: Trained) -> tuple[Contender, WithVal]:
        """`picked` trained once more, on train and val, for as many epochs as were best."""
        members = [picked]
        if picked.kind not in (TRIAL, FINAL):
            members = trained.by_seed
        base = self.config if picked.kind == TRIAL else trained.plan.recipe.base
        seeds = [member.seed for member in members if member.seed is not None]
        epochs = round(statistics.median(member.epoch for member in members))
        who = f"trial {self.trial.trial} of {self.source.name}"
        about = f"The settings of {who}, trained on train and val."
        config = on_val_too(lengthened(base, epochs))
        recipe = final_recipe(self.source.recipe, config, seeds, about)
        again = self._trained(recipe, "final-with-val")
        if len(again.models) < len(members):
            raise UnetexpError(
                f"sweep {again.plan.name}: {len(again.models)} of {len(members)} trainings on "
                "train and val were completed, so nothing was promoted. Its runs in MLflow say "
                "why. Without --with-val the model that validation picked is promoted."
            )
        with_val = WithVal(again.plan.name, epochs, tuple(seeds))
        title = f"{picked.title}, trained on train and val"
        if len(members) == 1:
            (model,) = again.models
            return _unjudged(picked, title, model.run_id, model.folder, model.epoch), with_val
        folders = [model.folder for model in again.by_seed]
        mixer = self._mixer(again, with_val_trained_on(self.data))
        with self.console.status(f"{picked.kind} of those trained on train and val"):
            folder = mixer.merged(picked.kind, folders)
        return _unjudged(picked, title, again.run_id, folder, epochs), with_val

    def _trained(self, recipe: Recipe, suffix: str) -> Trained:
        """The sweep of `recipe`, run to its end: a new one, or one that was interrupted."""
        tags = {FINAL_OF: self.source.name}
        earlier = earlier_retraining(self.store, recipe, tags, self.options)
        if earlier is None:
            plan = plan_retraining(self.store, self.source, recipe, suffix, tags, self.options)
            self.console.print(f"sweep {plan.name}: {self._announcement(recipe)}")
            train_again(plan, self.console, to_continue=self.to_continue)
        elif is_finished(self.store, earlier[0]):
            plan = earlier[0]
            self.console.print(f"sweep {plan.name} has trained this already")
        else:
            plan = earlier[0]
            self.console.print(f"sweep {plan.name} was interrupted and goes on where it was")
            train_again(plan, self.console, manifest=earlier[1], to_continue=self.to_continue)
        run = self.store.sweep_run(plan.name)
        models = self._models(source_sweep(self.store, run))
        if not models:
            raise UnetexpError(
                f"sweep {plan.name}: no training was completed, so nothing was promoted. Its runs "
                "in MLflow say why."
            )
        return Trained(plan, run.info.run_id, tuple(models))

    def _models(self, sweep: SourceSweep) -> list[Contender]:
        found = []
        for trial in full_budget_trials(self.store, sweep):
            if trial.has_weights:
                seed = int(trial.run.data.params["seed"])
                title = f"{FINAL} of trial {self.trial.trial} (seed {seed})"
                folder = locate(trial.run_id, self.store.uri)
                score, epoch = trial.score, trial.epoch
                found.append(Contender(FINAL, title, trial.run_id, folder, score, epoch, seed))
        return found

    def _announcement(self, recipe: Recipe) -> str:
        """What is trained, and for how long at the trial's own pace."""
        epochs, seeds = recipe.base.epochs, recipe.space["seed"].samples()
        text = (
            f"trial {self.trial.trial}'s settings for {count(epochs, 'epoch')}, "
            f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        )
        figures = self.trial.run.data.metrics
        epoch_s = figures.get("time/train_s", math.nan) + figures.get("time/val_s", math.nan)
        if not math.isfinite(epoch_s):
            return text
        minutes = max(1, round(len(seeds) * epochs * epoch_s / 60))
        return f"{text}; about {minutes} device minutes at the trial's pace"

    def _merged_title(self, kind: str, models: int) -> str:
        return f"{kind} of {models} final trainings of trial {self.trial.trial}"

    def _mixer(self, trained: Trained, data: Dataset) -> Mixer:
        return Mixer(Path(trained.plan.control, _MERGED), data, self.device)


def _unjudged(picked: Contender, title: str, run_id: str, folder: Path, epoch: int) -> Contender:
    """As `picked`, but without a score: validation was trained on."""
    kind = FINAL if picked.kind == TRIAL else picked.kind
    return Contender(kind, title, run_id, folder, math.nan, epoch)
