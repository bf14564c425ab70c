"""The decisions of a sweep: which trial comes next, which one stops, how each one ended.

Knows nothing of Ray or MLflow. Every event goes to the ledger first, then into the progress and
then to the listeners. The search and the rungs depend only on the ledger: a controller that gets a
ledger with earlier events continues where they ended.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import optuna
from optuna.trial import TrialState

from sweeps.config.budget import parse_duration
from sweeps.config.recipe import Recipe
from sweeps.config.search import Random
from sweeps.config.space import search_order, suggest
from sweeps.search.asha import StoppingRule
from sweeps.search.bounded_storage import BoundedStorage
from sweeps.search.evidence import in_space
from sweeps.search.outlook import is_looked_at, outlook
from sweeps.search.per_second import PROPOSALS, proposal_per_second
from sweeps.search.rungs import rungs_of
from sweeps.search.trial import Trial
from sweeps.search.trial_report import (
    DiskFull,
    EpochFinished,
    TrialFailed,
    TrialMessage,
    TrialPlaced,
    TrialReport,
)
from sweeps.search.warm_start import MISSING_EPOCHS, fits, known_trial
from sweeps.state.ledger import Event, Ledger, now_s
from sweeps.state.progress import SweepProgress, why_converged
from sweeps.state.stop_reason import StopReason
from unetexp.component import flatten
from unetexp.training.config import TrainConfig

Listener = Callable[[Event], None]

STUDY = "sweep"  # Optuna's Hyperband draws a trial's bracket by the study's name
HOPELESS = 3  # the sweep ends when this many first trials fail with the same error


class SweepController:
    """Decides for one sweep. One process, one thread."""

    def __init__(
        self,
        recipe: Recipe,
        seed: int,
        ledger: Ledger,
        listeners: Iterable[Listener] = (),
        at_once: int = 1,
        stopping: StoppingRule | None = None,
    ) -> None:
        """Replay the ledger's events; `at_once` trials run concurrently.

        `stopping` takes the place of the recipe's ASHA.
        """
        self.recipe, self.seed, self.ledger = recipe, seed, ledger
        self.listeners: list[Listener] = list(listeners)
        self.trials: dict[str, Trial] = {}
        self.ended: list[Trial] = []
        self.epochs = recipe.base.epochs
        self.goals = recipe.goals
        budget = recipe.budget.time
        self.progress = SweepProgress(
            recipe.budget.trials,
            self.epochs,
            at_once,
            None if budget is None else now_s() + parse_duration(budget),
            self.goals,
            confirming=recipe.budget.confirming,
        )
        self._searched = search_order(recipe.space)
        self._learns_from = 0  # the first trial that is not drawn at random, after a growth
        self.rungs: StoppingRule = stopping or rungs_of(recipe)
        self.halt_reason: str | None = None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Which trials are good changes with the front: several objectives remember all of them.
        storage = None if self.goals.several else BoundedStorage()
        self.study = optuna.create_study(
            study_name=STUDY,
            storage=storage,
            directions=self.goals.directions,
            sampler=self._sampler(0),
        )
        self._first: list[dict[str, Any]] = list(recipe.points)  # what is tried first
        self._grown = any(ledger.of("grown"))
        for event in ledger.events:
            self._replay(event)
        for point in self._first[len(self.trials) :]:
            self.study.enqueue_trial(point)
        self.progress.all_workers_gone()
        if recipe.budget.stop_when is None:
            self.progress.converged = None
        self._look_ahead()  # a driver may have died before it did
        self.to_continue = self.running  # unfinished trials come first

    @property
    def halted(self) -> bool:
        """Whether running trials should end and no new one should start."""
        deadline = self.progress.deadline
        out_of_time = deadline is not None and now_s() >= deadline - self.progress.reserved_s()
        return out_of_time or self.halt_reason is not None

    @property
    def converged(self) -> bool:
        """Whether no further trial is proposed, because none is likely to matter."""
        return self.progress.converged is not None

    @property
    def running(self) -> list[Trial]:
        return [trial for trial in self.trials.values() if not trial.ended]

    def propose(self) -> Trial | None:
        """The trial to run next, its `config` decoded; None when all have been proposed."""
        if self.halted:
            return None
        while self.to_continue:
            trial = self.to_continue.pop(0)
            if trial.decision is None:
                trial.config = trial.config or self.recipe.config(trial.values)
                return trial
            self.trial_ended(trial.id, trial.decision)  # told to stop, but no end recorded
        number = len(self.trials)
        if number >= self.recipe.budget.trials or self.converged:
            return None
        # One sampler per trial: a proposal does not depend on what was drawn before a restart.
        self.study.sampler = self._sampler(number)
        if self.recipe.search.cost_aware and number >= len(self._first):
            samplers = [self._sampler(number, other) for other in range(PROPOSALS)]
            left = 1 - number / self.recipe.budget.trials
            self.study.enqueue_trial(
                proposal_per_second(self.recipe, self.study, samplers, self.ended, left)
            )
        asked = self.study.ask()
        values = suggest(self.recipe.space, asked, self.recipe.fixed_values())
        config = self.recipe.config(values)
        trial_id = f"{number:04d}"
        self._happened("trial", trial=trial_id, values=values, params=flatten(config.tree()))
        return self._add(trial_id, asked, values, config)

    def trial_started(self, trial_id: str) -> None:
        """A worker has started the trial, for the first time or again."""
        self._happened("start", trial=trial_id)

    def trial_reported(self, trial_id: str, report: TrialReport) -> bool:
        """Handle a trial's report; True when it should continue."""
        match report:
            case TrialMessage(text):
                self.say(f"trial {trial_id}: {text}")
                return True
            case TrialPlaced():
                return True
            case EpochFinished(epoch, metrics):
                if self.epoch_finished(trial_id, {"epoch": epoch, **metrics}):
                    return True
                self.trial_ended(trial_id, StopReason.COMPLETED)
            case DiskFull(error):
                self.halt(f"a disk is full: {error}")
                self.trial_ended(trial_id, StopReason.INTERRUPTED, error)
            case TrialFailed(reason, error):
                self.trial_ended(trial_id, reason, error)
        return False

    def epoch_finished(self, trial_id: str, metrics: Mapping[str, float]) -> bool:
        """Record an epoch's metrics, `epoch` among them; True when the trial should continue.

        An epoch that is already in the ledger is ignored: a trial that resumed from a checkpoint
        repeats some.
        """
        trial = self.trials[trial_id]
        epoch = int(metrics["epoch"])
        if epoch > trial.epoch:
            self._happened("epoch", trial=trial_id, epoch=epoch, metrics=dict(metrics))
            self._decide(trial)
        return trial.decision is None

    def trial_restarted(self, trial_id: str, cause: StopReason) -> None:
        """Its worker died of `cause` (crash, preempted, node_lost); it continues elsewhere."""
        self._happened("restart", trial=trial_id, cause=cause)
        self.say(f"trial {trial_id} starts again from its last checkpoint: {cause.label}")

    def trial_put_back(self, trial_id: str) -> None:
        """Propose a trial once more, because it could not be started again."""
        self.to_continue.append(self.trials[trial_id])

    def trial_ended(self, trial_id: str, reason: StopReason, error: str = "") -> None:
        """Close a trial; its reason to stop, if it has one, replaces `reason`."""
        trial = self.trials[trial_id]
        if trial.ended:
            return
        reason = trial.decision or reason
        epoch = trial.epoch
        self._happened("end", trial=trial_id, reason=reason, error=error, epoch=epoch)
        self._end(trial, error)
        self._halt_if_hopeless()
        self._look_ahead()

    def gpu_set_aside(self, gpu: str, error: str) -> None:
        """Record that no trial uses `gpu` any more: processes died there, the last by `error`."""
        self._happened("gpu_set_aside", gpu=gpu, error=error)
        self.say(f"{gpu} is set aside for the rest of the sweep: {error}")

    def halt(self, reason: str) -> None:
        """End the sweep cleanly: running trials are interrupted and can be resumed."""
        self.halt_reason = reason
        self.say(reason)

    def say(self, text: str) -> None:
        """Send a message to the user."""
        self._happened("said", text=text)

    def _add(
        self,
        trial_id: str,
        asked: optuna.Trial,
        point: Mapping[str, Any] | None,
        config: TrainConfig | None = None,
    ) -> Trial:
        trial = Trial(self.progress.by_id[trial_id], asked, point, config)
        self.trials[trial_id] = trial
        return trial

    def _replay(self, event: Event) -> None:
        """Apply an event of an earlier driver as if it had happened now."""
        self.progress.apply(event)
        match event["event"]:
            case "trial":
                self._replay_proposal(event)
            case "known" if not self._grown or fits(self.recipe, event["values"]):
                self.study.add_trial(known_trial(self.recipe, event))
            case "first":
                self._first.append(event["values"])
            case "grown":
                self._first = [{} for _ in self.trials] + event["first"]
                # What is new in the space is first met by chance, as all of it was at the start:
                # a model of trials from elsewhere would hardly go there.
                self._learns_from = len(self._first) + self.recipe.search.startup_trials
            case "epoch":
                self._decide(self.trials[event["trial"]])
            case "end" if not StopReason(event["reason"]).resumable:
                self._end(self.trials[event["trial"]], event["error"])

    def _replay_proposal(self, event: Event) -> None:
        """A trial as the space has it now; Optuna hears nothing of one outside but its number."""
        values = event["values"]
        point = in_space(self.recipe, values) if self._grown else values
        if point is not None:
            self.study.enqueue_trial(point)  # what a first point left out was drawn then
        asked = self.study.ask()
        if point is None:
            self.study.tell(asked, state=TrialState.FAIL)
        else:
            suggest(self.recipe.space, asked, self.recipe.fixed_values())
        self._add(event["trial"], asked, point)

    def _end(self, trial: Trial, error: str) -> None:
        trial.ended, trial.error = True, error
        self.ended.append(trial)
        if trial.point is not None:
            self._tell(trial)

    def _decide(self, trial: Trial) -> None:
        """Decide whether the trial stops after the epoch that it has just finished."""
        epoch, score = trial.epoch, trial.progress.score
        judged = trial.progress.best if self.recipe.asha.judged == "best" else score
        told = trial.point is not None and not self.goals.several  # Optuna's is of one objective
        if math.isfinite(score) and told:
            trial.optuna_trial.report(judged, epoch)
        bracket, spent_s = self.recipe.bracket(trial.values), trial.progress.wall_s()
        if epoch >= self.epochs:
            trial.decision = StopReason.COMPLETED
            self.rungs.completed(trial.id, judged, bracket, spent_s)
        elif not math.isfinite(score):
            trial.decision = StopReason.NAN
        elif self.recipe.asha.enabled and not self.rungs.admits(
            trial.id,
            epoch,
            judged,
            bracket,
            trial.progress.point[1:],
            spent_s,
        ):
            trial.decision = StopReason.ASHA

    def _halt_if_hopeless(self) -> None:
        """End the sweep when all of the first trials failed with the same error."""
        if len(self.ended) != HOPELESS or not all(t.progress.failed for t in self.ended):
            return
        if len({_last_line(trial.error) for trial in self.ended}) == 1:
            text = self.ended[0].error
            self.halt(f"the first {HOPELESS} trials all failed with the same error:\n{text}")

    def _look_ahead(self) -> None:
        """Propose no more once the trials that are left are unlikely to gain what is wanted."""
        budget, ended = self.recipe.budget, len(self.ended)
        if budget.stop_when is None or self.converged or not is_looked_at(ended):
            return
        left = budget.trials - ended
        known = self.study.get_trials(deepcopy=False)
        found = outlook(self.recipe, known, left, budget.min_gain / 100, self.seed + ended)
        if found is None or not found.converged:
            return
        fields = {
            "probability": found.probability,
            "expected_gain": 100 * found.expected_gain,
            "min_gain": budget.min_gain,
            "left": left,
            "trials": budget.trials,
        }
        self._happened("converged", **fields)
        self.say(why_converged(fields))

    def _tell(self, trial: Trial) -> None:
        """Tell Optuna the score of a full-budget trial; a stopped one is pruned, any other failed.

        Ray's own searcher would report a stopped trial's partial score as if it were complete.
        With several objectives Optuna prunes nothing: a stopped trial then breaks a constraint by
        the epochs that it lacks, so that TPE ranks it after the complete ones in the same way.
        """
        reason, point = trial.progress.reason, trial.progress.point
        scored = all(map(math.isfinite, point))
        if reason is StopReason.COMPLETED and scored:
            self.study.tell(trial.optuna_trial, point)
        elif reason is StopReason.ASHA and not self.goals.several:
            self.study.tell(trial.optuna_trial, state=TrialState.PRUNED)
        elif reason is StopReason.ASHA and scored:
            trial.optuna_trial.set_constraint(MISSING_EPOCHS, self.epochs - trial.epoch)
            self.study.tell(trial.optuna_trial, point)
        elif reason is not StopReason.INTERRUPTED:
            self.study.tell(trial.optuna_trial, state=TrialState.FAIL)

    def _sampler(self, number: int, other: int = 0) -> optuna.samplers.BaseSampler:
        """The sampler of trial `number`, or an `other` one for it, of another seed."""
        search = self.recipe.search if number >= self._learns_from else Random()
        return search.build(self.seed + other, number, self._searched)

    def _happened(self, event: str, **fields: Any) -> None:
        recorded = self.ledger.append(event, **fields)
        self.progress.apply(recorded)
        for listener in self.listeners:
            listener(recorded)


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
