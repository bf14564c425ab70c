"""Which trials a leaderboard shows, in which order and with which columns."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from sweeps.config.metric_names import BEST, BEST_EPOCH, COST, LATENCY, PARAMETERS
from sweeps.leaderboard.filtering import column_named, filter_trials
from sweeps.leaderboard.trials import (
    PARETO,
    parameter_columns,
    per_class_columns,
    score_columns,
    spread_columns,
)
from unetexp.training.config import SPREAD

_OUTCOME = ("stop_reason", "full_budget", "epochs", "budget")
_WHOLE_NUMBERS = (BEST_EPOCH, PARAMETERS)


@dataclass(frozen=True)
class Leaderboard:
    """The rows shown, in order; `settings` and `classes` name the columns of each kind."""

    rows: pd.DataFrame
    settings: tuple[str, ...]
    classes: tuple[str, ...]
    of: int  # trials before the limit of rows
    notes: tuple[str, ...]


def rank_trials(
    frame: pd.DataFrame, *, sort: str | None, where: str | None, top: int | None
) -> Leaderboard:
    """The leaderboard of a frame of trials, see `leaderboard.trials_frame`.

    Without `sort`, trials that had the full budget come first, each group by its best score.
    With a column to sort by, the best value comes first, or the smallest where neither end is
    better; `-COLUMN` reverses the order. Raises ConfigError for an unknown column.
    """
    rows = frame if where is None else filter_trials(frame, where)
    column = None
    if sort is not None:
        column = column_named(frame, sort.removeprefix("-"), "--sort")
        ascending = _best_is_largest(column) == sort.startswith("-")
        rows = rows.sort_values(column, ascending=ascending, kind="stable")
    of = len(rows)
    rows = rows.head(top).reset_index(drop=True)
    settings = _differing(rows if len(rows) > 1 else frame)
    classes = per_class_columns(rows)
    pareto = [PARETO] if PARETO in rows else []
    columns = (
        *_OUTCOME,
        *score_columns(rows),
        *spread_columns(rows),
        BEST_EPOCH,
        *pareto,
        *settings,
        PARAMETERS,
        LATENCY,
        COST,
        *classes,
    )
    extra = [column] if column not in (None, "sweep", "trial", "run_id", *columns) else []
    shown = rows[["sweep", "trial", "run_id", *columns, *extra]]
    whole = dict.fromkeys(_WHOLE_NUMBERS, "Int64")
    return Leaderboard(shown.astype(whole), tuple(settings), tuple(classes), of, _notes(rows))


def _best_is_largest(column: str) -> bool:
    best_is_smallest = column == "val/loss" or column.endswith(SPREAD)
    return column.startswith(("val/", f"{BEST}val/", PARETO)) and not best_is_smallest


def _differing(rows: pd.DataFrame) -> list[str]:
    """The parameters that differ, those that every trial has first."""
    names = [name for name in parameter_columns(rows) if rows[name].nunique(dropna=False) > 1]
    return sorted(names, key=lambda name: (bool(rows[name].isna().any()), name))


def _notes(rows: pd.DataFrame) -> tuple[str, ...]:
    """Notes about trials that had less than the full budget."""
    full, scores = rows["full_budget"], score_columns(rows)
    if len(scores) > 1:
        return (f"The sweeps were compared by different scores: {', '.join(scores)}.",)
    if full.all():
        return ()
    partial = "* had fewer epochs than the full budget"
    if not full.any():
        return (f"{partial}; none of these trials had it.",)
    if (full & ~full.cummin()).any():
        return (
            f"{partial}. In this order some of them are above trials that had it, but the scores "
            "are not comparable.",
        )
    return (f"{partial}: ranked after those that had it.",)
