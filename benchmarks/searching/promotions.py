"""Successive halving with promotions: trials pause at rungs, and none is lost for good.

Algorithm 2 of Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020. The
conductor of real sweeps stops trials instead; here paused trials continue from where they were, as
if from a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping

from sweeps.config.recipe import Recipe
from sweeps.search.asha import milestones
from sweeps.search.controller import SweepController
from sweeps.search.trial import Trial
from sweeps.state.ledger import Ledger
from sweeps.state.stop_reason import StopReason


class Ladder:
    """Scores by rung, and who has left each rung upwards."""

    def __init__(self, rungs: list[int], reduction_factor: float) -> None:
        self.rungs = rungs
        self.paused: set[str] = set()
        self._factor = reduction_factor
        self._scores: dict[int, dict[str, float]] = {rung: {} for rung in rungs}
        self._promoted: set[tuple[int, str]] = set()

    def pause(self, trial: str, rung: int, score: float) -> None:
        """The trial waits at the rung."""
        self._scores[rung][trial] = score
        self.paused.add(trial)

    def promote(self) -> str | None:
        """The paused trial that continues: of the highest rung where one is among the best."""
        for rung in reversed(self.rungs):
            scores = self._scores[rung]
            count = int(len(scores) / self._factor)
            for trial in sorted(scores, key=lambda name: -scores[name])[:count]:
                if (rung, trial) not in self._promoted:
                    self._promoted.add((rung, trial))
                    self.paused.remove(trial)
                    return trial
        return None


class PromotingController(SweepController):
    """The controller of sweeps, with pauses in place of stops, at the rungs of its ASHA."""

    def __init__(self, recipe: Recipe, seed: int, ledger: Ledger, at_once: int = 1) -> None:
        never = recipe.asha.model_copy(update={"enabled": False})
        unstopped = recipe.model_copy(update={"asha": never})
        super().__init__(unstopped, seed, ledger, at_once=at_once)
        factor = recipe.asha.reduction_factor
        rungs = milestones(recipe.grace_epochs, recipe.base.epochs, factor)
        self.ladder = Ladder(rungs, factor)

    def propose(self) -> Trial | None:
        """A promoted trial, else a new one."""
        promoted = self.ladder.promote()
        return super().propose() if promoted is None else self.trials[promoted]

    def epoch_finished(self, trial_id: str, metrics: Mapping[str, float]) -> bool:
        """As for real sweeps; a trial at a rung gives its device back."""
        continues = super().epoch_finished(trial_id, metrics)
        trial = self.trials[trial_id]
        if not continues or trial.epoch not in self.ladder.rungs:
            return continues
        judged = trial.progress.best if self.recipe.asha.judged == "best" else trial.progress.score
        self.ladder.pause(trial_id, trial.epoch, judged)
        return False

    def trial_ended(self, trial_id: str, reason: StopReason, error: str = "") -> None:
        """A paused trial has not ended."""
        if trial_id not in self.ladder.paused:
            super().trial_ended(trial_id, reason, error)
