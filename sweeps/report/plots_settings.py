"""Plots of the searched settings: parallel coordinates, importance, slices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sweeps.report.importance import Importance, trials_needed
from sweeps.report.plot_style import (
    ABSENT,
    BLUE,
    HATCH,
    INK,
    MUTED,
    SCALE,
    Chart,
    annotation,
    axis,
    axis_key,
    grid_places,
    layout,
    numbered,
    percent,
    plain,
    trial_points,
)
from sweeps.report.searched_settings import Setting, text
from sweeps.report.sweep_data import EQUAL, SweepData
from sweeps.text import count

_MOST_PANELS = 12


def parallel(sweep_data: SweepData) -> Chart:
    """One line per trial through its settings, to its score at equal budget."""
    trials = sweep_data.comparable
    dimensions = [_axis_of(trials, setting) for setting in sweep_data.settings]
    scores = trials[EQUAL].round(4).tolist()
    label = f"{plain(sweep_data.score)}, epoch {sweep_data.equal_epoch}"
    dimensions.append({"label": label, "values": scores, "tickformat": ".0%"})
    line = {
        "color": scores,
        "colorscale": SCALE,
        "showscale": True,
        "colorbar": {
            "tickformat": ".0%",
            "title": {"text": plain(sweep_data.score)},
            "outlinewidth": 0,
        },
    }
    plot = {
        "type": "parcoords",
        "dimensions": dimensions,
        "line": line,
        "labelangle": -12,
        "labelfont": {"color": INK, "size": 11},
        "tickfont": {"color": INK, "size": 10},
        "rangefont": {"color": "rgba(0,0,0,0)"},
        "unselected": {"line": {"opacity": 0.06}},
    }
    margin = {"l": 110, "r": 40, "t": 80, "b": 30}
    return Chart(
        "parallel",
        "Parallel coordinates",
        "Drag along an axis to select trials. Where a setting was not searched, the line is at "
        f"{ABSENT}.",
        f"{count(len(trials), 'trial')} as lines over "
        f"{count(len(sweep_data.settings), 'setting')}.",
        [plot] if len(trials) else [],
        layout(420, margin=margin),
    )


def _axis_of(trials: pd.DataFrame, setting: Setting) -> dict[str, Any]:
    """One axis of the parallel coordinates; trials without the setting are below the rest."""
    active = setting.active(trials)
    if setting.choices:
        order = {
            plain(text(choice)): place for place, choice in enumerate(setting.choices, start=1)
        }
        places = [
            float(order.get(plain(text(value)), 0)) if here else 0.0
            for value, here in zip(trials[setting.path], active, strict=True)
        ]
        ticks = {float(place): name for name, place in order.items()}
        lowest = 0.0
    else:
        numbers = _numbers(trials, setting)
        scaled = np.log10(numbers) if setting.log else numbers
        low, high = (np.min(scaled[active]), np.max(scaled[active])) if active.any() else (0, 1)
        lowest = float(low - 0.12 * ((high - low) or 1))
        places = np.where(active, scaled, lowest).round(6).tolist()
        marks = np.linspace(low, high, 5) if high > low else np.array([low])
        ticks = {float(m): text(float(10**m if setting.log else m)) for m in marks}
    if not active.all():
        ticks[lowest] = ABSENT
    return {
        "label": setting.path,
        "values": places,
        "tickvals": list(ticks),
        "ticktext": list(ticks.values()),
        "range": [min(ticks), max(ticks)] if len(ticks) > 1 else [min(ticks) - 1, min(ticks) + 1],
    }


def importance(sweep_data: SweepData, found: Sequence[Importance]) -> Chart:
    """The share of the variance of scores that each setting accounts for, with its interval."""
    shown = list(reversed(found))
    values = [item.share.value for item in shown]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": values,
        "y": [item.setting for item in shown],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [item.share.high - item.share.value for item in shown],
            "arrayminus": [item.share.value - item.share.low for item in shown],
            "color": INK,
        },
        "marker": {
            "color": [BLUE if item.clear else MUTED for item in shown],
            "pattern": {"shape": ["" if item.clear else "/" for item in shown], **HATCH},
        },
        "hovertemplate": "%{y}: %{x:.0%}<extra></extra>",
    }
    few = f"Not enough trials: {len(sweep_data.comparable)} can be compared, "
    few += f"{trials_needed(sweep_data.settings)} are needed, with different scores and settings."
    clear = [item.setting for item in found if item.clear]
    summary = f"Clearly above zero: {', '.join(clear) or 'no setting'}."
    return Chart(
        "importance",
        "Importance of each setting",
        f"How much worse a forest predicts the {sweep_data.score} after epoch "
        f"{sweep_data.equal_epoch} when a setting is shuffled, as a share of the variance; "
        "whiskers: 95 % of bootstrap resamples. Hatched: not clearly above zero."
        if found
        else few,
        summary if found else few,
        [bars] if found else [],
        layout(
            110 + 36 * max(len(found), 1),
            xaxis=percent("share of the variance of scores", visible=bool(found)),
            yaxis=axis(visible=bool(found)),
            annotations=[] if found else [annotation(few)],
        ),
    )


def slices(sweep_data: SweepData) -> Chart:
    """The score at equal budget over each setting, one panel per setting."""
    shown = [s for s in sweep_data.settings if s.active(sweep_data.comparable).any()][:_MOST_PANELS]
    columns = 3
    rows = max(1, math.ceil(len(shown) / columns))
    gap = (0.07, 0.28 if rows < 3 else 0.5 / rows)
    data, axes = [], {}
    for index, (setting, (x, y)) in enumerate(
        zip(shown, grid_places(len(shown), columns, gap) if shown else [], strict=True)
    ):
        data += _slice(sweep_data.comparable, setting, index)
        kind: dict[str, Any] = (
            {"type": "log", "nticks": 4, "tickformat": "~g"} if setting.log else {}
        )
        if setting.choices:
            ticks = list(range(len(setting.choices)))
            names = [plain(text(choice)) for choice in setting.choices]
            ends = [-0.5, len(names) - 0.5]
            kind = {"tickvals": ticks, "ticktext": names, "range": ends}
        axes[axis_key("x", index)] = axis(
            setting.path, domain=x, anchor=numbered("y", index), **kind
        )
        shared = {"matches": "y"} if index else {}
        title = "" if index % columns else f"val {plain(sweep_data.score)}"
        own = {"domain": y, "anchor": numbered("x", index), **shared}
        axes[axis_key("y", index)] = percent(title, **own)
    left_out = len(sweep_data.settings) - len(shown)
    more = f" {count(left_out, 'setting')} not shown." if left_out else ""
    return Chart(
        "slices",
        "Slices",
        f"val {sweep_data.score} after epoch {sweep_data.equal_epoch} over each setting; an open "
        f"diamond is a trial that did not have the full budget.{more}",
        f"{count(len(shown), 'panel')}, one per setting.",
        data,
        layout(80 + 270 * rows, **axes),
    )


def _slice(trials: pd.DataFrame, setting: Setting, index: int) -> list[dict[str, Any]]:
    active = setting.active(trials)
    if setting.choices:
        order = {plain(text(choice)): place for place, choice in enumerate(setting.choices)}
        spread = (np.arange(len(trials)) * 0.618034) % 1 * 0.5 - 0.25  # even, not random
        x = np.array([order.get(plain(text(v)), np.nan) for v in trials[setting.path]]) + spread
    else:
        x = _numbers(trials, setting)
    found = []
    for full in (True, False):
        rows = active & (trials["full_budget"] == full).to_numpy(bool)
        found.append(
            trial_points(trials[rows], full, index, x[rows].round(8), EQUAL)
            | {
                "customdata": [plain(text(v)) for v in trials.loc[rows, setting.path]],
                "hovertemplate": "trial %{text}<br>%{customdata}: %{y:.1%}<extra></extra>",
            }
        )
    return found


def _numbers(trials: pd.DataFrame, setting: Setting) -> NDArray[np.float64]:
    numbers = pd.to_numeric(trials[setting.path], errors="coerce")
    found: NDArray[np.float64] = numbers.to_numpy(float, na_value=np.nan)
    return found
