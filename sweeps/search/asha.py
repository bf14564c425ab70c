"""Asynchronous successive halving (ASHA): which trials to stop early.

Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, in Ray Tune's
stopping form: a trial that reaches a rung is compared with those that reached it before, and
stops when it is below their best 1/reduction_factor. Unlike in Ray's own scheduler the rungs
depend only on the order of the results (no random brackets, no NaN accepted), so that replaying
the ledger rebuilds them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np


class AshaRungs:
    """The scores that trials had at each milestone (in epochs), separately for each bracket."""

    def __init__(self, grace_epochs: int, max_epochs: int, reduction_factor: float) -> None:
        self.reduction_factor = reduction_factor
        self.milestones = milestones(grace_epochs, max_epochs, reduction_factor)
        # The epochs after which a trial with finite scores may end for good
        self.decisive_epochs = frozenset([*self.milestones, max_epochs])
        self.scores: dict[tuple[str, int], dict[str, float]] = {}

    def admits(self, trial: str, epoch: int, score: float, bracket: str = "") -> bool:
        """Record the score if `epoch` is a rung; False when the trial should stop there."""
        if epoch not in self.milestones:
            return True
        rung = self.scores.setdefault((bracket, epoch), {})
        if trial in rung:
            return True
        cutoff = self._cutoff(rung.values())
        rung[trial] = score
        return score >= cutoff

    def describe(self) -> list[str]:
        """One line per rung: how many trials reached it."""
        return [
            f"rung at epoch {epoch}{f' of {bracket}' if bracket else ''}: {len(scores)} trials"
            for (bracket, epoch), scores in sorted(self.scores.items())
        ]

    def _cutoff(self, scores: Iterable[float]) -> float:
        recorded = list(scores)
        if not recorded:
            return -math.inf
        return float(np.percentile(recorded, (1 - 1 / self.reduction_factor) * 100))


def milestones(grace_epochs: int, max_epochs: int, reduction_factor: float) -> list[int]:
    """The epochs of the rungs: grace, grace x factor, ... below the last epoch."""
    found = []
    milestone = float(grace_epochs)
    while round(milestone) < max_epochs:
        found.append(round(milestone))
        milestone *= reduction_factor
    return found
