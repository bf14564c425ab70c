"""What a sweep decides: which trial comes next, which one stops, how each one ended.

Knows nothing of Ray or MLflow. Every event goes to the ledger first and then to the listeners,
and the search and the rungs follow from the ledger alone: a conductor that is given a ledger
with a past goes on where that past ended.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState

from sweeps.config.budget import parse_duration
from sweeps.config.recipe import Recipe
from sweeps.config.space import suggest
from sweeps.search.asha import AshaRungs
from sweeps.search.bounded_storage import BoundedStorage
from sweeps.search.warm_start import known_trial
from sweeps.state.ledger import Event, Ledger, now_s

Listener = Callable[[Event], None]

STARTUP_TRIALS = 5  # drawn at random before TPE has something to learn from
HOPELESS = 3  # so many first trials that fail with the same error end the sweep


_NO_FAILURES = ("completed", "asha", "interrupted")


@dataclass
class Trial:
    """What is known of one trial."""

    id: str
    values: dict[str, Any]
    optuna_trial: optuna.Trial
    epoch: int = 0
    best: float = -math.inf
    stop_reason: str | None = None
    decision: str | None = None  # why it was told to stop, before it has ended
    error: str = ""

    @property
    def failed(self) -> bool:
        return self.stop_reason not in (None, *_NO_FAILURES)


class SweepController:
    """The sweep's mind. One process, one thread."""

    def __init__(
        self, recipe: Recipe, seed: int, ledger: Ledger, listeners: list[Listener]
    ) -> None:
        self.recipe, self.seed, self.ledger, self.listeners = recipe, seed, ledger, listeners
        self.trials: dict[str, Trial] = {}
        self.ended: list[Trial] = []
        self.epochs = recipe.base.epochs
        budget = recipe.budget.time
        self.deadline = None if budget is None else now_s() + parse_duration(budget)
        self.rungs = AshaRungs(recipe.grace_epochs, self.epochs, recipe.asha.reduction_factor)
        self.halt_reason: str | None = None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(
            storage=BoundedStorage(), direction="maximize", sampler=self._sampler(0)
        )
        for point in recipe.points:
            self.study.enqueue_trial(point)
        for event in ledger.events:
            self._recall(event)
        self.to_continue = self.running  # what the past left unfinished comes first

    @property
    def halted(self) -> bool:
        """Whether running trials are to end and none is to start."""
        out_of_time = self.deadline is not None and now_s() >= self.deadline
        return out_of_time or self.halt_reason is not None

    @property
    def running(self) -> list[Trial]:
        return [trial for trial in self.trials.values() if trial.stop_reason is None]

    def propose(self) -> Trial | None:
        """The trial to run next, or None when the budget of trials is spent."""
        if self.halted:
            return None
        while self.to_continue:
            trial = self.to_continue.pop(0)
            if trial.decision is None:
                return trial
            self.trial_ended(trial.id, trial.decision)  # it was stopped, and killed right then
        number = len(self.trials)
        if number >= self.recipe.budget.trials:
            return None
        # A sampler a trial, seeded by its number: what a trial proposes does not depend on how
        # many random numbers were drawn before a restart.
        self.study.sampler = self._sampler(number)
        record = self._ask()
        self._happened("trial", trial=record.id, values=record.values)
        return record

    def _ask(self) -> Trial:
        asked = self.study.ask()
        values = suggest(self.recipe.space, asked, self.recipe.fixed_values())
        record = Trial(f"{len(self.trials):04d}", values, asked)
        self.trials[record.id] = record
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
        self._apply(trial, epoch, metrics)
        return trial.decision is None

    def trial_restarted(self, trial_id: str, cause: str) -> None:
        """Its worker died of `cause` (crash, preempted, node_lost); it goes on elsewhere."""
        self._happened("restart", trial=trial_id, cause=cause)
        wording = cause.replace("_", " ")
        self.say(f"trial {trial_id} starts again from its last checkpoint: {wording}")

    def trial_put_back(self, trial_id: str) -> None:
        """A trial that was to start again is to be proposed once more."""
        self.to_continue.append(self.trials[trial_id])

    def trial_ended(self, trial_id: str, reason: str, error: str = "") -> None:
        """Close a trial: completed, asha, nan, oom, error, crash, interrupted, ..."""
        trial = self.trials[trial_id]
        if trial.stop_reason is not None:
            return
        reason = trial.decision or reason
        self._happened("end", trial=trial_id, reason=reason, error=error, epoch=trial.epoch)
        self._end(trial, reason, error)
        self._halt_if_hopeless()

    def gpu_set_aside(self, gpu: str, error: str) -> None:
        """No trial will use `gpu` any more: processes kept dying there, the last of `error`."""
        self._happened("gpu_set_aside", gpu=gpu, error=error)
        self.say(f"{gpu} is set aside for the rest of the sweep: {error}")

    def halt(self, reason: str) -> None:
        """End the sweep in good order: running trials are interrupted and can go on later."""
        self.halt_reason = reason
        self.say(reason)

    def say(self, text: str) -> None:
        """Something the user should hear."""
        self._happened("said", text=text)

    def _recall(self, event: Event) -> None:
        """Take in an event of an earlier driver as if it had happened now."""
        match event["event"]:
            case "trial":
                if len(self.trials) >= len(self.recipe.points):
                    self.study.enqueue_trial(event["values"])
                self._ask()
            case "known":
                self.study.add_trial(known_trial(self.recipe, event))
            case "epoch":
                self._apply(self.trials[event["trial"]], event["epoch"], event["metrics"])
            case "end" if event["reason"] != "interrupted":  # an interrupted one goes on
                self._end(self.trials[event["trial"]], event["reason"], event["error"])

    def _end(self, trial: Trial, reason: str, error: str) -> None:
        trial.stop_reason, trial.error = reason, error
        self.ended.append(trial)
        if reason != "interrupted":
            self._tell(trial, reason)

    def _apply(self, trial: Trial, epoch: int, metrics: Mapping[str, float]) -> None:
        score = metrics[self.recipe.objective.metric]
        trial.epoch = epoch
        if math.isfinite(score):
            trial.best = max(trial.best, score)
            trial.optuna_trial.report(score, epoch)
        if epoch >= self.epochs:
            trial.decision = "completed"
        elif not math.isfinite(score):
            trial.decision = "nan"
        elif self.recipe.asha.enabled and not self.rungs.admits(
            trial.id, epoch, score, self.recipe.bracket(trial.values)
        ):
            trial.decision = "asha"

    def _halt_if_hopeless(self) -> None:
        """End the sweep when each of the first trials failed, and with the same error."""
        if len(self.ended) != HOPELESS or not all(trial.failed for trial in self.ended):
            return
        if len({_last_line(trial.error) for trial in self.ended}) == 1:
            text = self.ended[0].error
            self.halt(f"the first {HOPELESS} trials all failed with the same error:\n{text}")

    def _tell(self, trial: Trial, reason: str) -> None:
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


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
