"""What came of training the best trials again with new seeds, in words."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from unetexp.training.config import SCORE


@dataclass(frozen=True)
class SeedScores:
    """A trial of the sweep, and its scores with new seeds."""

    trial: str
    score: float  # in the sweep, with the sweep's seed
    scores: Mapping[int, float]  # best score by new seed; without those that failed
    dropped: str = ""  # of a race: why it got no further seeds

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores.values()) if self.scores else math.nan

    def describe(self) -> str:
        """Mean and spread, in a sentence."""
        if not self.scores:
            return f"trial {self.trial}: every training failed"
        values = sorted(self.scores.values())
        text = f"trial {self.trial}: mean {self.mean:.4f}"
        if len(values) > 1:
            text += (
                f", standard deviation {statistics.stdev(values):.4f}, "
                f"{values[0]:.4f} to {values[-1]:.4f}"
            )
        dropped = f"; {self.dropped}" if self.dropped else ""
        return f"{text} ({self.score:.4f} in the sweep){dropped}"


@dataclass(frozen=True)
class Confirmation:
    """The best trials of a sweep with new seeds, the chosen one first."""

    sweep: str  # the confirming one; of a race one for each seed, separated by commas
    seeds: tuple[int, ...]
    trials: tuple[SeedScores, ...]
    metric: str = SCORE  # of the scores

    def describe(self) -> list[str]:
        """The result: a heading, one line per trial, and the verdict."""
        count = len(self.seeds)
        seeds = f"{count} new seed{'s' if count > 1 else ''}"
        head = f"Best {self.metric} over {seeds} (sweep {self.sweep})"
        return [f"{head}:", *(trial.describe() for trial in self.trials), self.verdict()]

    def verdict(self) -> str:
        """Whether the sweep's choice is confirmed, in a sentence or two."""
        chosen, *others = self.trials
        scored = [trial for trial in others if trial.scores]
        if not chosen.scores:
            return f"The choice of trial {chosen.trial} is not confirmed: all its trainings failed."
        if not scored:
            return (
                "One trial alone cannot confirm a choice. Its spread is the effect of the seed; a "
                "mean below its score in the sweep is usual, because it was chosen as the best."
            )
        left = [trial for trial in scored if not trial.dropped]
        runner_up = max(left or scored, key=lambda trial: trial.mean)
        shared = [seed for seed in chosen.scores if seed in runner_up.scores]
        gaps = [chosen.scores[seed] - runner_up.scores[seed] for seed in shared]
        gap = statistics.fmean(gaps) if gaps else chosen.mean - runner_up.mean
        ahead = sum(each > 0 for each in gaps)
        progress = f"with {ahead} of {len(shared)} seeds"
        if gap > 0 and ahead == len(shared) > 1:
            return (
                f"The choice of trial {chosen.trial} is confirmed: {gap:.4f} above trial "
                f"{runner_up.trial} on average, and ahead {progress}."
            )
        if gap < 0 and ahead == 0 and len(shared) > 1:
            return (
                f"The choice of trial {chosen.trial} is not confirmed: trial {runner_up.trial} is "
                f"{-gap:.4f} above it on average, and ahead with every seed."
            )
        return (
            f"The choice of trial {chosen.trial} is neither confirmed nor refuted: it is "
            f"{abs(gap):.4f} {'above' if gap >= 0 else 'below'} trial {runner_up.trial} on average "
            f"and ahead {progress}, which may be due to the seed."
        )
