"""Rungs in seconds: trials are compared when they have had equal time, and not equal epochs.

As `asha.AshaRungs`, but a rung is a number of seconds on a worker, which a trial reaches with the
epoch that ends after it. A trial that had all its epochs before a rung is compared there by what it
ended with, so that a slow trial is worth its time only where it is ahead of the fast ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sweeps.search.asha import cutoff
from sweeps.text import spelled_duration


class TimeRungs:
    """The scores that trials had at each rung, separately for each bracket."""

    def __init__(
        self, grace_s: float, grace_epochs: int, max_epochs: int, reduction_factor: float
    ) -> None:
        """Rungs at `grace_s`, times the factor, ...; none before `grace_epochs` epochs."""
        self.grace_s, self.grace_epochs = grace_s, grace_epochs
        self.reduction_factor = reduction_factor
        # A trial may end after any epoch
        self.decisive_epochs = frozenset(range(1, max_epochs + 1))
        self.scores: dict[tuple[str, int], dict[str, float]] = {}
        self._completed: dict[str, dict[str, tuple[float, float]]] = {}
        self._passed: dict[str, int] = {}  # the last rung of each trial

    def admits(
        self,
        trial: str,
        epoch: int,
        score: float,
        bracket: str = "",
        others: Sequence[float] = (),
        spent_s: float = 0.0,
    ) -> bool:
        """Record the score if a rung was reached; False when the trial should stop there."""
        reached = self._rung(spent_s)
        if epoch < self.grace_epochs or reached <= self._passed.get(trial, -1):
            return True
        self._passed[trial] = reached
        rung = self.scores.setdefault((bracket, reached), {})
        time_s = self._seconds(reached)
        ended = self._completed.get(bracket, {}).values()
        compared = [*rung.values(), *(best for best, after_s in ended if after_s < time_s)]
        rung[trial] = score
        return score >= cutoff(compared, self.reduction_factor)

    def completed(self, trial: str, score: float, bracket: str, spent_s: float) -> None:
        """Record what the trial ended with, for the rungs that it did not reach."""
        self._completed.setdefault(bracket, {})[trial] = score, spent_s

    def describe(self) -> list[str]:
        """One line per rung: how many trials reached it."""
        return [
            f"rung at {spelled_duration(self._seconds(rung))}"
            f"{f' of {bracket}' if bracket else ''}: {len(scores)} trials"
            for (bracket, rung), scores in sorted(self.scores.items())
        ]

    def _rung(self, spent_s: float) -> int:
        """The last rung at or before a time; -1 before the first."""
        if spent_s < self.grace_s:
            return -1
        return math.floor(math.log(spent_s / self.grace_s, self.reduction_factor) + 1e-9)

    def _seconds(self, rung: int) -> float:
        return self.grace_s * self.reduction_factor**rung
