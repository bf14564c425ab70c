"""The progress of a sweep, computed from its events: best trial, running trials, time spent.

The only place that accumulates the ledger's events, `{"event": ..., "at": seconds since 1970,
...}`: the controller, the publisher, the terminal and a resumed driver all read it. Times are the
events' own, so replaying a ledger gives the same result.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sweeps.config.goals import USUAL, Goals
from sweeps.config.metric_names import BEST_EPOCH, COST
from sweeps.state.stop_reason import StopReason

Event = Mapping[str, Any]


_ENDED_WELL = (StopReason.COMPLETED, StopReason.ASHA)


def saved_s(spent_s: float, epochs: int, budget: int) -> float:
    """Seconds saved by stopping a trial after `epochs` of `budget` epochs, at its own pace."""
    return (budget - epochs) * spent_s / epochs


def why_converged(event: Event) -> str:
    """A `converged` event as a sentence."""
    return (
        f"further trials are unlikely to matter: with probability {event['probability']:.3f} any "
        f"of the {event['left']} that were left would gain {event['min_gain']:g} points or more; "
        f"the expected gain is {event['expected_gain']:.2f} points (budget.stop_when: converged)"
    )


@dataclass
class TrialProgress:
    """One trial so far."""

    id: str
    values: Mapping[str, Any] = field(default_factory=dict)  # dotted path -> searched value
    epoch: int = 0
    score: float = math.nan  # of the last epoch
    best: float = -math.inf
    best_epoch: int = 0
    reason: StopReason | None = None  # why it ended
    since: float | None = None  # when it was started on its current worker
    seen: float = 0.0  # the last sign of life
    spent_s: float = 0.0  # on workers it no longer runs on
    goals: Goals = USUAL
    figures: Mapping[str, float] = field(default_factory=dict)  # of the further objectives

    @property
    def running(self) -> bool:
        return self.since is not None

    @property
    def failed(self) -> bool:
        return self.reason is not None and self.reason.failed

    @property
    def best_metrics(self) -> dict[str, float]:
        """The best score and its epoch as metrics; empty before an epoch has a finite score."""
        return {self.goals.best: self.best, BEST_EPOCH: self.best_epoch} if self.best_epoch else {}

    @property
    def point(self) -> tuple[float, ...]:
        """The value of each objective (G,): the best score, those of its epoch, and the costs.

        The cost in device seconds counts as seconds on a worker: a sweep's trials have as many
        devices each.
        """
        costs = {COST: self.wall_s()}
        others = [{**self.figures, **costs}.get(o.tracked, math.nan) for o in self.goals.others]
        return (self.best, *others)

    def wall_s(self, now: float | None = None) -> float:
        """Seconds on a worker, up to `now` or the last sign of life."""
        if self.since is None:
            return self.spent_s
        return self.spent_s + max(0.0, (self.seen if now is None else now) - self.since)

    def apply(self, event: Event) -> None:
        """Apply an event of this trial."""
        match event["event"]:
            case "start":
                self.leave_worker()
                self.since = self.seen = event["at"]
                self.reason = None
            case "epoch":
                self.seen = event["at"]
                self.finish_epoch(event["epoch"], event["metrics"])
            case "end":
                self.seen = event["at"]
                self.leave_worker()
                self.reason = StopReason(event["reason"])

    def finish_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of an epoch; the only place where the best score is updated."""
        self.epoch, self.score = epoch, metrics.get(self.goals.score, math.nan)
        improved = math.isfinite(self.score) and (self.goals.keeps_last or self.score > self.best)
        if improved:
            self.best, self.best_epoch = self.score, self.epoch
        new = [o.tracked for o in self.goals.others if o.is_cost or improved]
        self.figures = {**self.figures, **{n: metrics[n] for n in new if n in metrics}}

    def leave_worker(self) -> None:
        self.spent_s, self.since = self.wall_s(), None


@dataclass
class SweepProgress:
    """A sweep of `trials` trials of `epochs` epochs, `at_once` of them concurrently.

    One thread applies events; another thread holds `lock` while it reads.
    """

    trials: int
    epochs: int
    at_once: int
    deadline: float | None = None  # seconds since 1970
    goals: Goals = USUAL
    by_id: dict[str, TrialProgress] = field(default_factory=dict)
    converged: Event | None = None  # why no further trial is proposed
    confirming: int = 0  # trainings that follow the trials
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False, compare=False)

    def apply(self, event: Event) -> TrialProgress | None:
        """Apply an event; returns the trial it is about."""
        with self.lock:
            if event["event"] == "trial":
                self.by_id[event["trial"]] = TrialProgress(
                    event["trial"], event["values"], goals=self.goals
                )
            elif event["event"] == "converged" and event["trials"] == self.trials:
                self.converged = event
            elif event["event"] == "grown":
                self.converged = None
            trial = self.by_id.get(event.get("trial", ""))
            if trial is not None:
                trial.apply(event)
            return trial

    def all_workers_gone(self) -> None:
        """Mark all trials as not running: a dead driver's workers are dead too."""
        for trial in self.running:
            trial.leave_worker()

    @property
    def running(self) -> list[TrialProgress]:
        return [trial for trial in self.by_id.values() if trial.running]

    @property
    def ranking(self) -> list[TrialProgress]:
        """Trials with a score: those that had the full budget first, each group best first."""
        scored = [trial for trial in self.by_id.values() if trial.best_epoch]
        return sorted(scored, key=lambda t: (t.reason is not StopReason.COMPLETED, -t.best))

    @property
    def ended_ranking(self) -> list[TrialProgress]:
        """The ranking of the trials that ended for good: a trial's place in it never improves."""
        return [t for t in self.ranking if t.reason is not None and not t.reason.resumable]

    @property
    def front(self) -> list[TrialProgress]:
        """The completed trials on the Pareto front of several objectives, best score first.

        Empty for one objective. A trial that left the front never returns.
        """
        if not self.goals.several:
            return []
        full = [trial for trial in self.ranking if trial.reason is StopReason.COMPLETED]
        return [full[index] for index in self.goals.front([trial.point for trial in full])]

    def kept(self, models: int) -> list[TrialProgress]:
        """The trials that keep their models: the `models` best, and the Pareto front."""
        best = self.ranking[:models]
        return [*best, *(trial for trial in self.front if trial not in best)]

    @property
    def leader(self) -> TrialProgress | None:
        """The trial with the best score so far, finished or not."""
        return max(self.ranking, key=lambda trial: trial.best, default=None)

    def count(self, *reasons: StopReason) -> int:
        return sum(trial.reason in reasons for trial in self.by_id.values())

    @property
    def failed(self) -> int:
        return sum(trial.failed for trial in self.by_id.values())

    @property
    def waiting(self) -> int:
        started = sum(t.running or t.reason is not None for t in self.by_id.values())
        trials = self.trials if self.converged is None else len(self.by_id)
        return max(0, trials - started)

    def spent_s(self, now: float | None = None) -> float:
        """Worker seconds of all trials."""
        return sum(trial.wall_s(now) for trial in self.by_id.values())

    def saved_s(self) -> float:
        """Worker seconds saved by early stopping, at each stopped trial's own pace."""
        return sum(
            saved_s(trial.wall_s(), trial.epoch, self.epochs)
            for trial in self.by_id.values()
            if trial.reason is StopReason.ASHA and trial.epoch
        )

    def reserved_s(self) -> float:
        """Seconds that the trainings after the trials will take, at the pace so far."""
        done = sum(trial.epoch for trial in self.by_id.values())
        if not done or not self.confirming:
            return 0.0
        rounds = math.ceil(self.confirming / max(1, self.at_once))
        return rounds * self.epochs * self.spent_s() / done

    def left_s(self, now: float) -> float | None:
        """Estimated seconds until the end, at the pace so far; None before the first epoch ended.

        Assumes that waiting trials run as many epochs as the ended ones did on average.
        """
        done = sum(trial.epoch for trial in self.by_id.values())
        if not done:
            return None
        ended = [t.epoch for t in self.by_id.values() if t.reason in _ENDED_WELL]
        usual = sum(ended) / len(ended) if ended else float(self.epochs)
        running = [
            (usual if trial.epoch < usual else self.epochs) - trial.epoch for trial in self.running
        ]
        to_come = sum(running) + self.waiting * usual
        workers = max(1, min(self.at_once, len(running) + self.waiting))
        pace = self.spent_s() / done
        left = max([to_come * pace / workers, *(epochs * pace for epochs in running)])
        if self.deadline is None:
            return left
        return max(0.0, min(left, self.deadline - self.reserved_s() - now))
