"""What further trials may gain: from how the best score grew with the number of trials.

The best of m trials is averaged over all choices of m among the N that there are. As many further
trials again gain about what the second half of these did, and less where the scores come near a
limit. The order in which trials ran does not matter, so what a search has learned is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.special
from numpy.typing import NDArray

from sweeps.report.sweep_data import SweepData

FEWEST = 8  # trials with a score


@dataclass(frozen=True)
class Regret:
    """The expected gain of as many further trials."""

    trials: int
    gain: float  # of the best score
    next_is_best: float  # probability that one further trial is the new best
    last_record: int  # how many of the trials had started when the best one had


def expected_best(scores: NDArray[np.float64], number: int) -> float:
    """The mean of the best score over all choices of `number` among the scores (N,)."""
    ranked = np.sort(scores)
    below = np.arange(len(ranked))  # how many scores are smaller
    shares = scipy.special.comb(below, number - 1) / scipy.special.comb(len(ranked), number)
    return float((shares * ranked).sum())


def regret(sweep_data: SweepData) -> Regret | None:
    """The estimate; None for fewer than FEWEST trials with a score."""
    trials = sweep_data.scored.sort_values(["start_time", "trial"])
    scores = trials[sweep_data.goals.best].to_numpy(float)
    total = len(scores)
    if total < FEWEST:
        return None
    return Regret(
        trials=total,
        gain=float(scores.max()) - expected_best(scores, total // 2),
        next_is_best=1 / (total + 1),
        last_record=int(scores.argmax()) + 1,
    )


def describe_regret(sweep_data: SweepData) -> list[str]:
    """The estimate in a sentence; with several objectives there is none."""
    if sweep_data.goals.several or sweep_data.trials.empty:
        return []
    found = regret(sweep_data)
    if found is None:
        return [
            f"What further trials would gain cannot be told from {len(sweep_data.scored)} with a "
            f"score: {FEWEST} are needed."
        ]
    return [
        f"{found.trials} further trials like these would raise the best score by about "
        f"{100 * found.gain:.1f} points of {sweep_data.score}, which is what the second half of "
        f"these gained on average over their orders. The best one was number {found.last_record} "
        f"of {found.trials}; the next trial beats it with a probability of about "
        f"{found.next_is_best:.0%}, or more where the search has learned."
    ]
