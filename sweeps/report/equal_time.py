"""Choices at equal device time: what each one's trials found for the same seconds.

At equal epochs a slow encoder looks as good as its scores; for the seconds of one of its trials a
fast one has several.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sweeps.config.metric_names import COST
from sweeps.report.searched_settings import Setting
from sweeps.report.sweep_data import SweepData
from sweeps.text import count

UNLIKE = 1.3  # between the seconds an epoch of a setting's choices, from which it is compared
_FEWEST = 2


@dataclass(frozen=True)
class _Spent:
    """A choice's trials one after the other: the best score so far at each epoch's end."""

    name: str
    ends_s: NDArray[np.float64]  # (n,) device seconds
    best: NDArray[np.float64]  # (n,)
    begins_s: NDArray[np.float64]  # (trials,)

    @property
    def epoch_s(self) -> float:
        return float(self.ends_s[-1]) / len(self.ends_s)

    def at(self, device_s: float) -> tuple[float, int]:
        """The best score until then, and how many trials had begun; NaN before the first epoch."""
        epochs = int(np.searchsorted(self.ends_s, device_s, side="right"))
        begun = int(np.searchsorted(self.begins_s, device_s, side="left"))
        return (float(self.best[epochs - 1]) if epochs else np.nan), begun


def at_equal_time(sweep_data: SweepData) -> list[str]:
    """A sentence on the setting whose choices differ most in cost; none where all cost alike.

    Of other settings the cost is mostly that of this one, with which they were tried.
    """
    compared = [each for s in sweep_data.settings if (each := _compared(sweep_data, s))]
    return [_sentence(sweep_data, max(compared, key=_unlike))] if compared else []


def _compared(sweep_data: SweepData, setting: Setting) -> list[_Spent]:
    """The choices with enough trials to compare; none where they cost alike."""
    if not setting.choices:
        return []
    groups = setting.groups(sweep_data.trials).items()
    spent = [_spent(sweep_data, name, sweep_data.trials[mask]) for name, mask in groups]
    found = [each for each in spent if each is not None and len(each.begins_s) >= _FEWEST]
    return found if len(found) > 1 and _unlike(found) >= UNLIKE else []


def _spent(sweep_data: SweepData, name: str, trials: pd.DataFrame) -> _Spent | None:
    """The choice's trials in the order of their proposals, each at its own pace."""
    steps, scores, begins, now_s = list[float](), list[float](), list[float](), 0.0
    for run, epochs, cost in _in_order(trials):
        curve = dict(sweep_data.curves[run])
        begins.append(now_s)
        for epoch in range(1, epochs + 1):
            now_s += cost / epochs
            steps.append(now_s)
            scores.append(curve.get(epoch, -np.inf))
    if not steps or not np.isfinite(max(scores)):
        return None
    best = np.maximum.accumulate(np.array(scores))
    return _Spent(
        name, np.array(steps), np.where(np.isfinite(best), best, np.nan), np.array(begins)
    )


def _in_order(trials: pd.DataFrame) -> Iterator[tuple[str, int, float]]:
    """(run id, epochs, device s) of the trials that trained and have a cost."""
    known = trials[(trials["epochs"] > 0) & (trials[COST] > 0)].sort_values("trial")
    for run, epochs, cost in zip(known["run_id"], known["epochs"], known[COST], strict=True):
        yield str(run), int(epochs), float(cost)


def _unlike(spent: list[_Spent]) -> float:
    paces = [each.epoch_s for each in spent]
    return max(paces) / min(paces)


def _sentence(sweep_data: SweepData, spent: list[_Spent]) -> str:
    time_s = min(float(each.ends_s[-1]) for each in spent)
    reached = [(each, *each.at(time_s)) for each in spent]
    reached.sort(key=lambda item: -np.nan_to_num(item[1], nan=-1.0))
    parts = [
        f"{each.name} {score:.1%} with {count(begun, 'trial')} ({each.epoch_s:.2g} s an epoch)"
        for each, score, begun in reached
    ]
    minutes = f"{time_s / 60:.0f} min" if round(time_s) >= 120 else f"{time_s:.0f} s"
    return (
        f"At equal device time, {minutes} each and the trials in the order of their proposals, "
        f"the best {sweep_data.score} was: {'; '.join(parts)}. That is what this sweep found, not "
        "a test."
    )
