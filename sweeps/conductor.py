"""What a sweep decides: which trial comes next, which one stops, how each one ended.

Knows nothing of Ray or MLflow. Every event goes to the ledger first and then to the listeners,
and the search and the rungs follow from the ledger alone: `replay` rebuilds them.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState

from sweeps.ledger import Event, Ledger
from sweeps.recipe import Recipe, parse_duration
from sweeps.rungs import Rungs
from sweeps.space import suggest

Listener = Callable[[Event], None]

STARTUP_TRIALS = 5  # drawn at random before TPE has something to learn from


@dataclass
class TrialRecord:
    """What is known of one trial."""

    id: str
    values: dict[str, Any]
    optuna_trial: optuna.Trial
    epoch: int = 0
    best: float = -math.inf
    stop_reason: str | None = None
    decision: str | None = None  # why it was told to stop, before it has ended


class Conductor:
    """The sweep's mind. One process, one thread."""

    def __init__(
        self, recipe: Recipe, seed: int, ledger: Ledger, listeners: list[Listener]
    ) -> None:
        self.recipe, self.seed, self.ledger, self.listeners = recipe, seed, ledger, listeners
        self.trials: dict[str, TrialRecord] = {}
        self.epochs = recipe.base.epochs
        budget = recipe.budget.time
        self.deadline = None if budget is None else time.time() + parse_duration(budget)
        self.rungs = Rungs(
            recipe.asha.grace(self.epochs), self.epochs, recipe.asha.reduction_factor
        )
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(direction="maximize", sampler=self._sampler(0))
        for point in recipe.points:
            self.study.enqueue_trial(point)

    @property
    def halted(self) -> bool:
        """Whether the time budget is spent: running trials end and none is started."""
        return self.deadline is not None and time.time() >= self.deadline

    @property
    def running(self) -> list[TrialRecord]:
        return [trial for trial in self.trials.values() if trial.stop_reason is None]

    def propose(self) -> TrialRecord | None:
        """The next trial, or None when the budget of trials is spent."""
        number = len(self.trials)
        if number >= self.recipe.budget.trials or self.halted:
            return None
        # A sampler a trial, seeded by its number: what a trial proposes does not depend on how
        # many random numbers were drawn before a restart.
        self.study.sampler = self._sampler(number)
        asked = self.study.ask()
        values = suggest(self.recipe.space, asked, self.recipe.fixed_values())
        record = TrialRecord(f"{number:04d}", values, asked)
        self.trials[record.id] = record
        self._happened("trial", trial=record.id, values=values)
        return record

    def trial_started(self, trial_id: str) -> None:
        """A worker has taken the trial up, for the first time or again."""
        self._happened("start", trial=trial_id)

    def epoch_finished(self, trial_id: str, metrics: Mapping[str, float]) -> bool:
        """Take in an epoch's figures; True when the trial should go on.

        An epoch that is already in the record (a trial that went on from a checkpoint repeats
        some) changes nothing.
        """
        trial = self.trials[trial_id]
        epoch = int(metrics["epoch"])
        if epoch <= trial.epoch:
            return trial.decision is None
        self._happened("epoch", trial=trial_id, epoch=epoch, metrics=dict(metrics))
        self._take_in(trial, epoch, metrics)
        return trial.decision is None

    def trial_ended(self, trial_id: str, reason: str, error: str = "") -> None:
        """Close a trial: completed, asha, nan, oom, error, crash, interrupted, ..."""
        trial = self.trials[trial_id]
        if trial.stop_reason is not None:
            return
        reason = trial.decision or reason
        trial.stop_reason = reason
        if reason != "interrupted":  # an interrupted trial can go on
            self._tell(trial, reason)
        self._happened("end", trial=trial_id, reason=reason, error=error, epoch=trial.epoch)

    def _take_in(self, trial: TrialRecord, epoch: int, metrics: Mapping[str, float]) -> None:
        score = metrics[self.recipe.objective.metric]
        trial.epoch = epoch
        if math.isfinite(score):
            trial.best = max(trial.best, score)
            trial.optuna_trial.report(score, epoch)
        if epoch >= self.epochs:
            trial.decision = "completed"
        elif not math.isfinite(score):
            trial.decision = "nan"
        elif self.recipe.asha.enabled and not self.rungs.admits(trial.id, epoch, score):
            trial.decision = "asha"

    def _tell(self, trial: TrialRecord, reason: str) -> None:
        """Optuna learns full-budget scores as such, stopped trials as pruned, others as failed.

        Ray's own searcher would report a stopped trial's partial score as if it were complete.
        """
        if reason == "completed" and math.isfinite(trial.best):
            self.study.tell(trial.optuna_trial, trial.best)
        elif reason == "asha":
            self.study.tell(trial.optuna_trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial.optuna_trial, state=TrialState.FAIL)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        with warnings.catch_warnings():
            # `group` handles conditional dimensions; it has been experimental since Optuna 2.8.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                seed=(self.seed * 1_000_003 + number) % 2**32,
                n_startup_trials=STARTUP_TRIALS,
                multivariate=True,
                group=True,
                constant_liar=True,
            )

    def _happened(self, event: str, **fields: Any) -> None:
        record = self.ledger.append(event, **fields)
        for listener in self.listeners:
            listener(record)
