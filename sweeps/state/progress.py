"""What a sweep's events add up to: who leads, who runs, the time spent, saved and left.

Takes the ledger's events as they come, `{"event": ..., "at": seconds since 1970, ...}`; times
are the events' own, so a record played again adds up to the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sweeps.config.metric_names import OBJECTIVE

Event = Mapping[str, Any]

COMPLETED, STOPPED, INTERRUPTED = "completed", "asha", "interrupted"


@dataclass
class TrialProgress:
    """One trial so far."""

    id: str
    values: Mapping[str, Any]
    epoch: int = 0
    score: float = math.nan  # of the last epoch
    best: float = -math.inf
    best_epoch: int = 0
    reason: str | None = None  # why it ended
    since: float | None = None  # when it was taken up by the worker it runs on
    seen: float = 0.0  # the last sign of life
    spent_s: float = 0.0  # on workers it no longer runs on

    @property
    def running(self) -> bool:
        return self.since is not None

    @property
    def failed(self) -> bool:
        return self.reason not in (None, COMPLETED, STOPPED, INTERRUPTED)

    def wall_s(self, now: float | None = None) -> float:
        """Seconds on a worker, up to `now` or the last sign of life."""
        if self.since is None:
            return self.spent_s
        return self.spent_s + max(0.0, (self.seen if now is None else now) - self.since)

    def leave_worker(self) -> None:
        self.spent_s, self.since = self.wall_s(), None


@dataclass
class SweepProgress:
    """A sweep of `trials` trials of `epochs` epochs, `at_once` of them side by side."""

    trials: int
    epochs: int
    at_once: int
    deadline: float | None = None  # seconds since 1970
    by_id: dict[str, TrialProgress] = field(default_factory=dict)

    def apply(self, event: Event) -> TrialProgress | None:
        """Add an event; returns the trial it is about."""
        kind = event["event"]
        if kind == "trial":
            self.by_id[event["trial"]] = TrialProgress(event["trial"], event["values"])
        trial = self.by_id.get(event.get("trial", ""))
        if trial is None:
            return None
        if kind == "start":
            trial.leave_worker()
            trial.since = trial.seen = event["at"]
            trial.reason = None
        elif kind == "epoch":
            trial.seen = event["at"]
            trial.epoch = event["epoch"]
            trial.score = event["metrics"].get(OBJECTIVE, math.nan)
            if math.isfinite(trial.score) and trial.score > trial.best:
                trial.best, trial.best_epoch = trial.score, trial.epoch
        elif kind == "end":
            trial.seen = event["at"]
            trial.leave_worker()
            trial.reason = event["reason"]
        return trial

    @property
    def running(self) -> list[TrialProgress]:
        return [trial for trial in self.by_id.values() if trial.running]

    @property
    def ranking(self) -> list[TrialProgress]:
        """Trials with a score: those that had the full budget first, each group best first."""
        scored = [trial for trial in self.by_id.values() if trial.best_epoch]
        return sorted(scored, key=lambda t: (t.reason != COMPLETED, -t.best))

    @property
    def leader(self) -> TrialProgress | None:
        """The trial with the best score so far, finished or not."""
        return max(self.ranking, key=lambda trial: trial.best, default=None)

    def count(self, *reasons: str) -> int:
        return sum(trial.reason in reasons for trial in self.by_id.values())

    @property
    def failed(self) -> int:
        return sum(trial.failed for trial in self.by_id.values())

    @property
    def waiting(self) -> int:
        taken_up = sum(t.running or t.reason is not None for t in self.by_id.values())
        return max(0, self.trials - taken_up)

    def spent_s(self, now: float | None = None) -> float:
        """Worker seconds of all trials."""
        return sum(trial.wall_s(now) for trial in self.by_id.values())

    def saved_s(self) -> float:
        """Worker seconds that early stopping spared, at each stopped trial's own pace."""
        return sum(
            (self.epochs - trial.epoch) * trial.wall_s() / trial.epoch
            for trial in self.by_id.values()
            if trial.reason == STOPPED and trial.epoch
        )

    def left_s(self, now: float) -> float | None:
        """Seconds until the end at the pace so far; None before the first epoch has ended.

        A trial still to come is taken to run as many epochs as the ended ones did on average.
        """
        done = sum(trial.epoch for trial in self.by_id.values())
        if not done:
            return None
        ended = [t.epoch for t in self.by_id.values() if t.reason in (COMPLETED, STOPPED)]
        usual = sum(ended) / len(ended) if ended else float(self.epochs)
        running = [
            (usual if trial.epoch < usual else self.epochs) - trial.epoch for trial in self.running
        ]
        to_come = sum(running) + self.waiting * usual
        workers = max(1, min(self.at_once, len(running) + self.waiting))
        pace = self.spent_s() / done
        left = max([to_come * pace / workers, *(epochs * pace for epochs in running)])
        return left if self.deadline is None else max(0.0, min(left, self.deadline - now))
