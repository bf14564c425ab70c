"""Plots of the trials' models: per-class IoU; the score against latency, parameters and cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from sweeps.config.budget import Objective
from sweeps.config.goals import Goals
from sweeps.config.metric_names import COST, LATENCY, PARAMETERS
from sweeps.leaderboard.trials import per_class_columns
from sweeps.report.plot_style import (
    LINES,
    MARKS,
    MUTED,
    ORANGE,
    Chart,
    axis,
    axis_key,
    grid_places,
    layout,
    numbered,
    percent,
    plain,
    trial_points,
)
from sweeps.report.sweep_data import SweepData
from sweeps.text import count

_HIGHLIGHTED = 3
_COSTS = {
    LATENCY: "latency of one image, ms",
    PARAMETERS: "parameters, millions",
    COST: "cost, device minutes",
}
_USUAL = ("latency_ms", "parameters", COST)  # where the sweep has one objective
_SCALES = {LATENCY: 1.0, PARAMETERS: 1e-6, COST: 1 / 60}


def per_class(sweep_data: SweepData) -> Chart:
    """The distribution of each class's IoU over full-budget trials, with the best trials."""
    trials = sweep_data.scored
    full = trials[trials["full_budget"]]
    some = full if len(full) else trials
    columns = [name for name in per_class_columns(some) if some[name].notna().any()]
    columns.sort(key=lambda name: float(some[name].median()))
    names = [_class_name(column) for column in columns]
    quarters = some[columns].quantile([0, 0.25, 0.5, 0.75, 1]).round(4)
    data: list[dict[str, Any]] = []
    if columns:
        data.append(_boxes(names, quarters))
    for place, (_, trial) in enumerate(some.head(_HIGHLIGHTED).iterrows()):
        colour, _dash = LINES[place]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"{place + 1}: trial {trial['label']}",
                "x": [float(trial[column]) for column in columns],
                "y": names,
                "marker": {"symbol": MARKS[place], "color": colour, "size": 9},
                "hovertemplate": "%{y}: %{x:.1%}<extra>%{fullData.name}</extra>",
            }
        )
    kind = "full-budget" if len(full) else "partial-budget"
    return Chart(
        "classes",
        "IoU of each class",
        f"Boxes: {kind} trials in their best epoch (ends: lowest and highest, box: the middle "
        "half). Markers: the best trials. The hardest class is at the bottom.",
        f"{count(len(columns), 'class').replace('classs', 'classes')} over "
        f"{count(len(some), 'trial')}.",
        data,
        layout(
            150 + 26 * max(len(columns), 1),
            xaxis=percent("IoU", range=[-0.02, 1.02]),
            yaxis=axis(type="category"),
        ),
    )


def _boxes(names: Sequence[str], quarters: pd.DataFrame) -> dict[str, Any]:
    lowest, low, middle, high, highest = quarters.to_numpy().tolist()
    return {
        "type": "box",
        "orientation": "h",
        "name": "all",
        "y": list(names),
        "lowerfence": lowest,
        "q1": low,
        "median": middle,
        "q3": high,
        "upperfence": highest,
        "line": {"color": MUTED, "width": 1.5},
        "fillcolor": "rgba(128,128,128,0.15)",
        "hoverinfo": "x",
    }


def _class_name(column: str) -> str:
    return plain(column.removeprefix("val/iou/"))


def prices(sweep_data: SweepData) -> Chart:
    """The score against the other objectives, or latency, parameters and cost; Pareto fronts."""
    goals = sweep_data.goals
    others = goals.others or tuple(Objective.model_validate(metric) for metric in _USUAL)
    places = grid_places(len(others), len(others), (0.06, 0))
    data, axes = [], {}
    for index, (other, (x, y)) in enumerate(zip(others, places, strict=True)):
        trials = sweep_data.scored[sweep_data.scored[other.tracked].notna()]
        data += _cost_panel(trials, goals, other, index)
        own = {"domain": x, "anchor": numbered("y", index)}
        axes[axis_key("x", index)] = axis(_COSTS.get(other.tracked, plain(other.metric)), **own)
        shared: dict[str, Any] = {"matches": "y", "showticklabels": False} if index else {}
        own = {"domain": y, "anchor": numbered("x", index), **shared}
        title = "" if index else f"best val {plain(goals.label)}"
        axes[axis_key("y", index)] = percent(title, **own)
    return Chart(
        "prices",
        f"{goals.label} against {_names(others)}",
        "The line is the Pareto front of full-budget trials: none of them is better and cheaper. "
        "Partial-budget trials cost less because they were stopped, and are not on it.",
        f"{count(len(sweep_data.scored), 'trial')} against {_figures(others)}.",
        data,
        layout(380, **axes),
    )


def _names(others: Sequence[Objective]) -> str:
    words = {"latency_ms": "latency", COST: "cost"}
    *first, last = [words.get(other.metric, other.metric) for other in others]
    return f"{', '.join(first)} and {last}" if first else last


def _figures(others: Sequence[Objective]) -> str:
    if all(other.is_cost for other in others):
        number = {1: "one cost", 2: "two costs", 3: "three costs"}
        return number[len(others)]
    return count(len(others), "other objective")


def pareto(prices: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Indices of the Pareto-optimal points, the cheapest first."""
    front: list[int] = []
    for index in sorted(range(len(scores)), key=lambda i: (prices[i], -scores[i])):
        if not front or scores[index] > scores[front[-1]]:
            front.append(index)
    return front


def _cost_panel(
    trials: pd.DataFrame, goals: Goals, other: Objective, index: int
) -> list[dict[str, Any]]:
    place = {"xaxis": numbered("x", index), "yaxis": numbered("y", index)}
    price = trials[other.tracked] * _SCALES.get(other.tracked, 1.0)
    found = []
    for full in (True, False):
        rows = trials["full_budget"] == full
        points = trial_points(trials[rows], full, index, price[rows].round(4), goals.best)
        hover = "trial %{text}<br>%{x:.3~g}: %{y:.1%}<extra></extra>"
        found.append(points | {"hovertemplate": hover})
    full_price = price[trials["full_budget"]].tolist()
    full_score = trials.loc[trials["full_budget"], goals.best].tolist()
    front = pareto([-p if other.mode == "max" else p for p in full_price], full_score)
    line = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "Pareto front",
        "legendgroup": "front",
        "showlegend": index == 0,
        "x": [round(full_price[i], 4) for i in front],
        "y": [round(full_score[i], 4) for i in front],
        "line": {"shape": "hv", "color": ORANGE, "width": 2},
        "marker": {"symbol": "circle-open", "size": 12, "color": ORANGE},
        "hoverinfo": "skip",
        **place,
    }
    return [*found, line]
