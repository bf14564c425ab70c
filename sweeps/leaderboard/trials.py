"""The trials of one or several sweeps as a table: one row per trial, the best first."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from sweeps.config.goals import Goals, goals_of
from sweeps.config.metric_names import BEST, BEST_EPOCH, COST, LATENCY, PARAMETERS
from sweeps.state.stop_reason import RUNNING, StopReason
from sweeps.text import script
from sweeps.tracking.metric_history import histories, values_at
from sweeps.tracking.store import RETRAINS, TrackingStore
from unetexp.errors import UserError, not_a_choice
from unetexp.metrics.figures.families import FAMILIES
from unetexp.training.config import SPREAD

if TYPE_CHECKING:
    from mlflow.entities import Run

__all__ = [
    "LATENCY",
    "PARAMETERS",
    "histories",
    "is_figure",
    "parameter_columns",
    "per_class_columns",
    "score_columns",
    "select_sweeps",
    "trials_frame",
]

PARETO = "pareto"  # a column where a sweep has several objectives
_VAL = "val/"
_BUDGET = "epochs"  # the parameter with the epochs of a full trial
_IDENTITY = ("sweep", "trial", "run_id")
_OUTCOME = ("stop_reason", "full_budget", "epochs", "budget")
_COSTS = (LATENCY, PARAMETERS, COST)
_OWN = (*_IDENTITY, *_OUTCOME, BEST_EPOCH, *_COSTS, "start_time")


def select_sweeps(store: TrackingStore, names: Sequence[str]) -> list[Run]:
    """The parent runs of the sweeps called `names`; without names, of the newest sweep.

    A sweep that only trains trials of another one again does not count as the newest. Raises
    UserError for a name that no sweep has.
    """
    runs = {run.data.tags["sweep.name"]: run for run in reversed(store.sweep_runs())}
    if not runs:
        raise UserError(f"there are no sweeps yet. Run one: {script('run')}")
    newest_first = list(reversed(runs))
    for name in names:
        if name not in runs:
            raise UserError(not_a_choice("sweep", name, newest_first))
    searched = [name for name in newest_first if not {*RETRAINS} & runs[name].data.tags.keys()]
    own = searched or newest_first
    return [runs[name] for name in dict.fromkeys(names or own[:1])]


def trials_frame(store: TrackingStore, sweeps: Sequence[str]) -> pd.DataFrame:
    """One row per trial of the named sweeps: trials that had the full budget first, each group
    best first.

    Columns: `sweep`, `trial` (its id), `run_id`; `stop_reason`, `full_budget`, `epochs` (used) and
    `budget` (of a full trial); the best score, `best/val/miou` or that of another objective, and
    `best/epoch`; `pareto` where a sweep has several objectives: whether a full-budget trial is on
    the Pareto front of its sweep; every validation metric
    (`val/...`) in that best epoch; `time/latency_ms`, `model/parameters`, `cost/device_s`;
    `start_time` (UTC); and every parameter by its dotted path, as number, bool or text. What a
    trial lacks is missing (NaN). Sweeps of different scores have a column each, and are ordered by
    those in turn. Raises UserError for a name that no sweep has.
    """
    parents = select_sweeps(store, sweeps)
    goals = {parent.data.tags["sweep.name"]: goals_of(parent.data.tags) for parent in parents}
    scores = list(dict.fromkeys(each.best for each in goals.values()))
    runs = [run for parent in parents for run in store.trial_runs(parent.info.run_id)]
    metrics = _best_epoch_metrics(store, runs)
    parameters = _typed([run.data.params for run in runs])
    rows = [_own_columns(run, scores) for run in runs]
    own = pd.DataFrame(rows, columns=[*_OWN, *scores])
    frame = pd.concat(
        [
            own[[*_IDENTITY, *_OUTCOME, *scores, BEST_EPOCH]],
            pd.DataFrame(metrics, columns=sorted({name for row in metrics for name in row})),
            own[[*_COSTS, "start_time"]],
            parameters.drop(columns=[name for name in _OWN if name in parameters]),
        ],
        axis="columns",
    )
    if any(each.several for each in goals.values()):
        frame.insert(frame.columns.get_loc(BEST_EPOCH) + 1, PARETO, _on_front(frame, goals))
    order = ["full_budget", *scores, "start_time", "trial"]
    ascending = [False, *([False] * len(scores)), True, True]
    return frame.sort_values(order, ascending=ascending, kind="stable", ignore_index=True)


def _on_front(frame: pd.DataFrame, goals: Mapping[str, Goals]) -> pd.Series:
    """Whether each trial is on the Pareto front of its sweep's full-budget trials."""
    front = pd.Series(False, index=frame.index)
    for sweep, own in goals.items():
        full = frame[(frame["sweep"] == sweep) & frame["full_budget"]]
        if own.several and len(full):
            points = full.reindex(columns=list(own.columns)).to_numpy(float)
            front[full.index[own.front(points)]] = True
    return front


def score_columns(frame: pd.DataFrame) -> list[str]:
    """The columns of a frame of trials that hold the best score of one sweep or another."""
    return [name for name in frame if name.startswith(BEST) and name != BEST_EPOCH]


def spread_columns(frame: pd.DataFrame) -> list[str]:
    """The columns with the spread of those scores over folds, in the best epoch."""
    names = [name.removeprefix(BEST) + SPREAD for name in score_columns(frame)]
    return [name for name in names if name in frame and frame[name].notna().any()]


def parameter_columns(frame: pd.DataFrame) -> list[str]:
    """The columns of a frame of trials that are parameters: dotted paths, never with a slash."""
    own = (*_OWN, PARETO)
    return [name for name in frame if name not in own and "/" not in name]


def per_class_columns(frame: pd.DataFrame) -> list[str]:
    """The columns of a frame of trials that hold the IoU of a class, in the best epoch."""
    return [name for name in frame if name.startswith("val/iou/")]


def is_figure(column: str) -> bool:
    """Whether a column of a frame of trials is a figure that only full-budget trials have.

    There are a dozen a class: the report has them with units and intervals.
    """
    family, of_a_class, _ = column.removeprefix(_VAL).partition("/")
    if not column.startswith(_VAL) or family not in FAMILIES or family in ("iou", "dice"):
        return False
    return bool(of_a_class) or family != "dice_per_image"  # every epoch has its mean over classes


def _own_columns(run: Run, scores: Sequence[str]) -> dict[str, Any]:
    tags, metrics = run.data.tags, run.data.metrics
    reason = tags.get("stop_reason", RUNNING)
    return {
        "sweep": tags["sweep.name"],
        "trial": tags["tune.trial_id"],
        "run_id": run.info.run_id,
        "stop_reason": reason,
        "full_budget": reason == StopReason.COMPLETED,
        "epochs": max(_last_epochs(run).values(), default=0),
        "budget": int(run.data.params.get(_BUDGET, 0)),
        **{name: metrics.get(name, math.nan) for name in (*scores, BEST_EPOCH, *_COSTS)},
        "start_time": pd.Timestamp(run.info.start_time, unit="ms", tz="UTC"),
    }


def _best_epoch_metrics(store: TrackingStore, runs: Sequence[Run]) -> list[dict[str, float]]:
    """The validation metrics of each run in its best epoch.

    MLflow returns those of the last epoch; where that was not the best, points are looked up.
    """
    metrics, missed = [], {}
    for run in runs:
        last = {name: run.data.metrics[name] for name in run.data.metrics if _is_val(name)}
        best = run.data.metrics.get(BEST_EPOCH)
        metrics.append(last if best is not None else {})
        if best is not None and any(step != best for step in _last_epochs(run, _VAL).values()):
            missed[run.info.run_id] = int(best)
    names = {name for row in metrics for name in row}
    found = values_at(store, missed, names) if missed else {}
    return [found.get(run.info.run_id, row) for run, row in zip(runs, metrics, strict=True)]


def _is_val(name: str) -> bool:
    return name.startswith(_VAL)


def _last_epochs(run: Run, prefix: str = "") -> dict[str, int]:
    """By name, the step of each metric's last point."""
    points = run.to_proto().data.metrics
    return {point.key: point.step for point in points if point.key.startswith(prefix)}


def _typed(rows: Sequence[Mapping[str, str]]) -> pd.DataFrame:
    """Parameters with the types that they had before MLflow stored them as text."""
    texts = pd.DataFrame(rows)
    return pd.DataFrame({name: _typed_column(texts[name]) for name in sorted(texts)})


def _typed_column(texts: pd.Series) -> pd.Series:
    """Numbers or bools if all values are, else texts; `None` is a missing value."""
    values = [None if pd.isna(text) else _literal(text) for text in texts]
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pd.Series(values, dtype="boolean" if None in values else "bool")
    if kinds == {int}:
        return pd.Series(values, dtype="Int64" if None in values else "int64")
    if kinds and kinds <= {int, float}:
        return pd.Series(values, dtype="float64")
    return texts.where([value is not None for value in values], None).astype("str")


def _literal(text: str) -> Any:
    """The number, bool or None that a text represents, else the text."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, bool | int | float) or value is None else text
