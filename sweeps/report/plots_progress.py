"""The course of a sweep: best score over time, learning curves, device time, stop reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from sweeps.config.metric_names import COST
from sweeps.report.plot_style import (
    BLUE,
    FULL,
    GREEN,
    HATCH,
    LINES,
    MARKS,
    MUTED,
    ORANGE,
    PARTIAL,
    RED,
    Chart,
    axis,
    gaps,
    layout,
    mark,
    percent,
    plain,
)
from sweeps.report.sweep_data import Curve, SweepData
from sweeps.state.stop_reason import RUNNING, StopReason, is_failure, label_of
from sweeps.text import count

_MOST_POINTS = 30_000  # of learning curves in one plot
_HIGHLIGHTED = 5


def history(sweep_data: SweepData) -> Chart:
    """Each trial's best score when it ended, and the best so far."""
    trials = sweep_data.scored[sweep_data.scored["end_h"].notna()].sort_values("end_h")
    score, label = sweep_data.goals.best, plain(sweep_data.score)
    minutes = bool(trials["end_h"].max() < 2)
    unit, scale = ("minutes", 60.0) if minutes else ("hours", 1.0)
    data = []
    for full, name in ((True, FULL), (False, PARTIAL)):
        some = trials[trials["full_budget"] == full]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": list(some["end_h"] * scale),
                "y": list(some[score]),
                "text": list(some["label"]),
                "marker": mark(full),
                "hovertemplate": f"trial %{{text}}<br>%{{y:.1%}} {label}<extra></extra>",
            }
        )
    finished = trials[trials["full_budget"]]
    until = [trials["end_h"].max() * scale] if len(finished) else []
    best = finished[score].cummax().tolist()
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best full-budget trial so far",
            "x": [*(finished["end_h"] * scale), *until],
            "y": [*best, *best[-1:]],
            "line": {"shape": "hv", "color": ORANGE, "width": 2},
            "hoverinfo": "skip",
        }
    )
    return Chart(
        "history",
        "History",
        f"Each trial's best {sweep_data.score} at the time it ended. The line follows full-budget "
        "trials only.",
        f"{count(len(trials), 'trial')} with a score by end time.",
        data,
        layout(
            360,
            xaxis=axis(f"{unit} since the start", rangemode="tozero"),
            yaxis=percent(f"best val {label}"),
        ),
    )


def learning_curves(sweep_data: SweepData) -> Chart:
    """The score by epoch: the best trials highlighted, crosses where trials were stopped."""
    scored = sweep_data.trials[
        [bool(sweep_data.curves[run]) for run in sweep_data.trials["run_id"]]
    ]
    best = scored[scored["full_budget"]].head(_HIGHLIGHTED)
    others = scored.drop(best.index)
    curves = [sweep_data.curves[run] for run in others["run_id"]]
    data = [_bundle(curves, list(others["label"]))]
    for place, (_, trial) in enumerate(best.iterrows()):
        colour, dash = LINES[place]
        curve = sweep_data.curves[trial["run_id"]]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": f"{place + 1}: trial {trial['trial']}",
                "x": [epoch for epoch, _ in curve],
                "y": [score for _, score in curve],
                "line": {"color": colour, "dash": dash, "width": 2},
                "marker": {"symbol": MARKS[place], "size": 6},
                "hovertemplate": "epoch %{x}: %{y:.1%}<extra>%{fullData.name}</extra>",
            }
        )
    data.append(_stops(sweep_data, others[others["stop_reason"] == StopReason.ASHA]))
    return Chart(
        "curves",
        "Learning curves",
        f"val {sweep_data.score} after each epoch. A cross marks where early stopping (ASHA) "
        "stopped a trial.",
        f"{count(len(scored), 'trial')}, the {len(best)} best full-budget trials highlighted; "
        f"{int((scored['stop_reason'] == StopReason.ASHA).sum())} were stopped early.",
        data,
        layout(
            420,
            xaxis=axis("epoch", rangemode="tozero"),
            yaxis=percent(f"val {plain(sweep_data.score)}"),
        ),
    )


def _bundle(curves: Sequence[Curve], labels: Sequence[str]) -> dict[str, Any]:
    """Many curves as one trace; only every n-th epoch if there are too many points."""
    points = sum(map(len, curves))
    step = max(1, math.ceil(points / _MOST_POINTS))
    thin = [[*curve[:-1:step], curve[-1]] for curve in curves]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "other trials",
        "x": gaps([[epoch for epoch, _ in curve] for curve in thin]),
        "y": gaps([[round(score, 4) for _, score in curve] for curve in thin]),
        "text": gaps([[label] * len(curve) for curve, label in zip(thin, labels, strict=True)]),
        "line": {"color": MUTED, "width": 1},
        "opacity": 0.45,
        "hovertemplate": "trial %{text}, epoch %{x}: %{y:.1%}<extra></extra>",
    }


def _stops(sweep_data: SweepData, stopped: pd.DataFrame) -> dict[str, Any]:
    lasts = [sweep_data.curves[run][-1] for run in stopped["run_id"]]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "stopped early",
        "x": [epoch for epoch, _ in lasts],
        "y": [score for _, score in lasts],
        "text": list(stopped["label"]),
        "marker": {"symbol": "x-thin-open", "size": 8, "color": ORANGE, "line": {"width": 2}},
        "hovertemplate": "trial %{text} stopped after epoch %{x}: %{y:.1%}<extra></extra>",
    }


def device_time(sweep_data: SweepData) -> Chart:
    """Device hours spent, by stop reason, and those that early stopping saved."""
    trials = sweep_data.trials
    hours = trials[COST].fillna(0) / 3600
    reason = trials["stop_reason"]
    failed = reason.map(is_failure)
    saved = pd.Series(sweep_data.saved_s, index=trials.index).fillna(0) / 3600
    unit, scale = ("minutes", 60.0) if (hours.sum() + saved.sum()) < 2 else ("hours", 1.0)
    parts = [
        ("completed", hours[reason == StopReason.COMPLETED], BLUE, "", "spent"),
        ("stopped early", hours[reason == StopReason.ASHA], ORANGE, "/", "spent"),
        ("failed", hours[failed], RED, "x", "spent"),
        (
            "interrupted or running",
            hours[reason.isin([StopReason.INTERRUPTED, RUNNING])],
            MUTED,
            ".",
            "spent",
        ),
        ("saved by stopping (estimate)", saved, GREEN, "\\", "saved"),
    ]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "x": [round(float(values.sum()) * scale, 3)],
            "y": [row],
            "marker": {
                "color": colour,
                "pattern": {"shape": pattern, **HATCH},
            },
            "hovertemplate": f"{name}: %{{x:.2f}} {unit}<extra></extra>",
        }
        for name, values, colour, pattern, row in parts
        if row == "saved" or values.sum() > 0
    ]
    unknown = int(trials[COST].isna().sum())
    lacking = f" {count(unknown, 'trial')} recorded no cost." if unknown else ""
    return Chart(
        "hours",
        "Device time spent and saved",
        "Saved: the epochs that stopped trials did not run, at each trial's own pace." + lacking,
        f"{hours.sum():.2f} hours spent, about {saved.sum():.2f} saved.",
        data,
        layout(
            230, barmode="stack", xaxis=axis(f"device {unit}"), yaxis=axis(autorange="reversed")
        ),
    )


def endings(sweep_data: SweepData) -> Chart:
    """Number of trials by stop reason; failures by cause."""
    counts = sweep_data.trials["stop_reason"].value_counts()
    colours = [RED if is_failure(reason) else MUTED for reason in counts.index]
    failed = int(counts[[reason for reason in counts.index if is_failure(reason)]].sum())
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": counts.tolist(),
        "y": [label_of(str(reason)) for reason in counts.index],
        "text": counts.tolist(),
        "textposition": "auto",
        "marker": {
            "color": colours,
            "pattern": {"shape": ["x" if c == RED else "" for c in colours], **HATCH},
        },
        "hovertemplate": "%{y}: %{x}<extra></extra>",
        "showlegend": False,
    }
    return Chart(
        "endings",
        "Stop reasons",
        "Trials by stop reason. Crossed bars are failures.",
        f"{count(failed, 'failed trial')} of {len(sweep_data.trials)}.",
        [bars],
        layout(130 + 34 * len(counts), xaxis=axis("trials"), yaxis=axis(autorange="reversed")),
    )
