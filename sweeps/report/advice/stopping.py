"""What early stopping may have cost: the chance that a stopped trial would have become the best.

A trial that ran to its end lost a share of the error (1 - score) that it had at the epoch where
another one was stopped. A stopped trial is given such shares in turn, drawn from all trials that
ran to their end, each independently; the largest score of a draw is compared with the sweep's best.

What slow learners would have gained is not known from this: they are stopped first, so few
are among the trials that ran on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sweeps.report.effects import FEWEST
from sweeps.report.sweep_data import Curve, SweepData, best_until
from sweeps.state.stop_reason import StopReason
from sweeps.text import count

_DRAWS = 4000


@dataclass(frozen=True)
class StoppingLoss:
    """By how much the best score may be too low because trials were stopped."""

    stopped: int
    ran_on: int  # trials whose gains were drawn
    probability: float  # that at least one stopped trial would have beaten the best
    expected: float  # mean of the loss, 0 where none would have
    high: float  # its 95th percentile


def stopping_loss(sweep_data: SweepData, seed: int = 0) -> StoppingLoss | None:
    """The estimate; None where no trial was stopped, or fewer than FEWEST ran to their end."""
    trials, curves = sweep_data.trials, sweep_data.curves
    ends = [curves[run] for run in trials.loc[trials["full_budget"], "run_id"] if curves[run]]
    reasons = trials["stop_reason"] == StopReason.ASHA
    stopped = [curves[run] for run in trials.loc[reasons, "run_id"] if curves[run]]
    if not stopped or len(ends) < FEWEST:
        return None
    rng = np.random.default_rng(seed)
    finals = np.array([_best(curve) for curve in ends])
    reached = np.full(_DRAWS, -np.inf)
    for curve in stopped:
        at = np.array([best_until(other, curve[-1][0]) for other in ends])
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = np.where(at < 1, (1 - finals) / (1 - at), 1.0)
        shares = shares[np.isfinite(shares)]
        if len(shares):
            drawn = 1 - (1 - _best(curve)) * rng.choice(shares, _DRAWS)
            reached = np.maximum(reached, drawn)
    loss = np.maximum(reached - finals.max(), 0)
    return StoppingLoss(
        stopped=len(stopped),
        ran_on=len(ends),
        probability=float((loss > 0).mean()),
        expected=float(loss.mean()),
        high=float(np.quantile(loss, 0.95)),
    )


def _best(curve: Curve) -> float:
    return max(score for _, score in curve)


def describe_loss(sweep_data: SweepData) -> list[str]:
    """The estimate in a sentence; with several objectives there is none."""
    trials = sweep_data.trials
    if sweep_data.goals.several or not (trials["stop_reason"] == StopReason.ASHA).any():
        return []
    found = stopping_loss(sweep_data)
    if found is None:
        full = int(trials["full_budget"].sum())
        return [
            f"What stopping may have cost cannot be told from {count(full, 'trial')} that ran all "
            f"epochs: {FEWEST} are needed."
        ]
    stopped, ran_on = count(found.stopped, "stopped trial"), count(found.ran_on, "trial")
    had = f"Had the {stopped} gained as the {ran_on} that ran on did after the same epoch"
    slow = (
        "Slow learners, which are stopped first, would gain more than that: whether there was one "
        "is seen with asha.enabled=false."
    )
    if not found.probability:
        return [f"{had}, none would have become the best. {slow}"]
    return [
        f"{had}, one would have become the best with a probability of about "
        f"{found.probability:.0%}. Expected loss: {100 * found.expected:.1f} points of "
        f"{sweep_data.score}, and with a probability of 95 % at most {100 * found.high:.1f}. {slow}"
    ]
