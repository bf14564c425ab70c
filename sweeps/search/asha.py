"""Asynchronous successive halving (ASHA): which trials to stop early.

Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, in Ray Tune's
stopping form: a trial that reaches a rung is compared with those that reached it before, and
stops when it is below their best 1/reduction_factor. Unlike in Ray's own scheduler the rungs
depend only on the order of the results (no random brackets, no NaN accepted), so that replaying
the ledger rebuilds them.

With several objectives a trial below that cutoff continues where it is on the Pareto front of its
rung: a small, fast model is not stopped for being less exact than a large one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from sweeps.config.goals import USUAL, Goals


class StoppingRule(Protocol):
    """What the controller asks after every epoch with a finite score, but for a trial's last."""

    @property
    def decisive_epochs(self) -> frozenset[int]:
        """The epochs after which a trial may end for good."""
        ...

    def admits(
        self,
        trial: str,
        epoch: int,
        score: float,
        bracket: str = "",
        others: Sequence[float] = (),
        spent_s: float = 0.0,
    ) -> bool:
        """Record the score; False when the trial should stop.

        `others` are the values of the further objectives (G - 1,), `spent_s` the seconds that the
        trial has been on workers.
        """
        ...

    def completed(self, trial: str, score: float, bracket: str, spent_s: float) -> None:
        """Record what a trial had after its last epoch."""
        ...

    def describe(self) -> list[str]:
        """What the rule has seen so far, in lines."""
        ...


class AshaRungs:
    """The scores that trials had at each milestone (in epochs), separately for each bracket."""

    def __init__(
        self,
        grace_epochs: int,
        max_epochs: int,
        reduction_factor: float,
        goals: Goals = USUAL,
    ) -> None:
        self.goals = goals
        self.reduction_factor = reduction_factor
        self.milestones = milestones(grace_epochs, max_epochs, reduction_factor)
        # The epochs after which a trial with finite scores may end for good
        self.decisive_epochs = frozenset([*self.milestones, max_epochs])
        self.scores: dict[tuple[str, int], dict[str, float]] = {}
        self._costs: dict[tuple[str, int], dict[str, Sequence[float]]] = {}

    def admits(
        self,
        trial: str,
        epoch: int,
        score: float,
        bracket: str = "",
        others: Sequence[float] = (),
        spent_s: float = 0.0,
    ) -> bool:
        """Record the score if `epoch` is a rung; False when the trial should stop there."""
        if epoch not in self.milestones:
            return True
        rung = self.scores.setdefault((bracket, epoch), {})
        if trial in rung:
            return True
        needed = cutoff(rung.values(), self.reduction_factor)
        costs = self._costs.setdefault((bracket, epoch), {})
        before = ((rung[other], *costs[other]) for other in list(rung))
        admitted = score >= needed or self._is_on_front((score, *others), before)
        rung[trial], costs[trial] = score, others
        return admitted

    def completed(self, trial: str, score: float, bracket: str, spent_s: float) -> None:
        """No rung is at the last epoch."""

    def describe(self) -> list[str]:
        """One line per rung: how many trials reached it."""
        return [
            f"rung at epoch {epoch}{f' of {bracket}' if bracket else ''}: {len(scores)} trials"
            for (bracket, epoch), scores in sorted(self.scores.items())
        ]

    def _is_on_front(self, point: Sequence[float], before: Iterable[Sequence[float]]) -> bool:
        """Whether none of the points `before` dominates this one, of several objectives."""
        if not self.goals.several or not all(map(math.isfinite, point)):
            return False
        return not any(self.goals.dominates(other, point) for other in before)


def cutoff(scores: Iterable[float], reduction_factor: float) -> float:
    """What is among the best 1/reduction_factor of the scores; -inf without any."""
    recorded = np.fromiter(scores, float)
    if not recorded.size:
        return -math.inf
    return float(np.percentile(recorded, (1 - 1 / reduction_factor) * 100))


def milestones(grace_epochs: int, max_epochs: int, reduction_factor: float) -> list[int]:
    """The epochs of the rungs: grace, grace x factor, ... below the last epoch."""
    found = []
    milestone = float(grace_epochs)
    while round(milestone) < max_epochs:
        found.append(round(milestone))
        milestone *= reduction_factor
    return found
