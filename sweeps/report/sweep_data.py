"""The data of a report, read from the tracking store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sweeps.config.goals import USUAL, Goals, goals_of
from sweeps.config.metric_names import COST
from sweeps.config.space import Dimension
from sweeps.leaderboard.trials import histories, trials_frame
from sweeps.report.searched_settings import Setting, searched_settings, space_of
from sweeps.state.progress import saved_s
from sweeps.state.stop_reason import StopReason
from sweeps.tracking.store import TrackingStore

if TYPE_CHECKING:
    from mlflow.entities import Run

EQUAL = "score at equal budget"  # a column of the trials
Curve = list[tuple[int, float]]  # (epoch, score)


@dataclass(frozen=True)
class SweepData:
    """One sweep: one row per trial, the best full-budget trial first."""

    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    data: Mapping[str, Any]  # as `Dataset.summary`; empty if it was not stored
    trials: pd.DataFrame  # as `trials_frame`, and EQUAL, `label`, `end_h`
    curves: Mapping[str, Curve]  # by run id
    settings: tuple[Setting, ...]
    budget: int  # epochs of a full trial
    equal_epoch: int  # the last that all completed and stopped trials reached; 0 without any
    goals: Goals = USUAL
    space: Mapping[str, Dimension] = field(default_factory=dict)  # of its recipe, if it is stored

    @property
    def score(self) -> str:
        """What the score is called: mIoU, Dice, IoU of lesion."""
        return self.goals.label

    @property
    def scored(self) -> pd.DataFrame:
        """The trials with a score."""
        return self.trials[self.trials[self.goals.best].notna()]

    @property
    def comparable(self) -> pd.DataFrame:
        """The trials with a score at equal budget."""
        return self.trials[self.trials[EQUAL].notna()]

    @property
    def saved_s(self) -> NDArray[np.float64]:
        """Device seconds saved by early stopping, (N,), at each stopped trial's own pace."""
        trials = self.trials
        stopped = (trials["stop_reason"] == StopReason.ASHA) & (trials["epochs"] > 0)
        epochs = trials["epochs"].where(stopped).clip(upper=self.budget)
        saved = np.asarray(saved_s(trials[COST], epochs, self.budget), float)
        found: NDArray[np.float64] = np.nan_to_num(saved)
        return found


def load_sweep_data(store: TrackingStore, sweep: str) -> SweepData:
    """Read a sweep; UserError if there is none of that name."""
    parent = store.sweep_run(sweep)
    trials = trials_frame(store, [sweep])
    goals = goals_of(parent.data.tags)
    curves = histories(store, list(trials["run_id"]), goals.score)
    curves = {run: [p for p in curve if np.isfinite(p[1])] for run, curve in curves.items()}
    texts = _texts(store, parent)
    budget = int(max([*trials["budget"], *trials["epochs"], 0]))
    epoch = _equal_epoch(trials, curves)
    scores = [best_until(curves[run], epoch) for run in trials["run_id"]]
    own = {
        EQUAL: pd.Series(scores, index=trials.index, dtype=float),
        "label": [_label(*row) for row in zip(trials["trial"], trials["stop_reason"], strict=True)],
        "end_h": _hours(store, parent, trials),
    }
    recipe, params = texts.get("recipe.yaml"), dict(parent.data.params)
    return SweepData(
        name=sweep,
        params=params,
        tags=dict(parent.data.tags),
        data=_mapping(texts.get("data.json")),
        trials=trials.assign(**own),
        curves=curves,
        settings=searched_settings(trials, recipe, params),
        budget=budget,
        equal_epoch=epoch,
        goals=goals,
        space=space_of(recipe),
    )


def _equal_epoch(trials: pd.DataFrame, curves: Mapping[str, Curve]) -> int:
    ended = trials["stop_reason"].isin([StopReason.COMPLETED, StopReason.ASHA])
    lasts = [curves[run][-1][0] for run in trials.loc[ended, "run_id"] if curves[run]]
    return min(lasts, default=0)


def best_until(curve: Curve, epoch: int) -> float:
    """The best score until `epoch`, which no single bad epoch changes; NaN if it has no score."""
    if epoch not in dict(curve):
        return float("nan")
    return max(score for at, score in curve if at <= epoch)


def _label(trial: str, reason: str) -> str:
    return trial if reason == StopReason.COMPLETED else f"{trial}*"


def _hours(store: TrackingStore, parent: Run, trials: pd.DataFrame) -> list[float]:
    """When each trial ended, in hours since the sweep started; NaN for one that has not."""
    ends = {run.info.run_id: run.info.end_time for run in store.trial_runs(parent.info.run_id)}
    start = parent.info.start_time
    return [(ends.get(run) or np.nan) / 3.6e6 - start / 3.6e6 for run in trials["run_id"]]


def _texts(store: TrackingStore, parent: Run) -> dict[str, str]:
    run_id, found = parent.info.run_id, {}
    held = {entry.path for entry in store.client.list_artifacts(run_id)}
    with TemporaryDirectory() as scratch:
        for name in {"recipe.yaml", "data.json"} & held:
            path = Path(store.client.download_artifacts(run_id, name, scratch))
            found[name] = path.read_text(encoding="utf-8")
    return found


def _mapping(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except json.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
