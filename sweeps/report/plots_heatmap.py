"""The heat map: the mean score of each combination of three choices."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from sweeps.report.plot_style import (
    SCALE,
    TIMES,
    Chart,
    annotation,
    axis,
    axis_key,
    grid_places,
    layout,
    numbered,
    plain,
)
from sweeps.report.searched_settings import Setting, text
from sweeps.report.sweep_data import EQUAL, SweepData
from sweeps.text import count

_HEAT = ("encoder.freeze", "decoder.upsampling", "loss.kind")  # x axis, y axis, panels


def heat_map(sweep_data: SweepData) -> Chart:
    """Mean score at equal budget of each combination of three choices."""
    across, up, panels = _heat_settings(sweep_data.settings)
    title = TIMES.join(s.path for s in (across, up, panels) if s)
    names = {
        "encoder.freeze": "Freezing",
        "decoder.upsampling": "upsampling",
        "loss.kind": "loss",
    }
    own = TIMES.join(names[path] for path in _HEAT)
    if across is None or up is None:
        few = "Fewer than two settings with choices were searched: there are no combinations."
        return Chart("heat", own, few, few, [], layout(120))
    options = _tried(sweep_data.comparable, panels) if panels else [None]
    if not options:
        few = "No trial has a score at equal budget: there is nothing to show."
        return Chart("heat", own, few, few, [], layout(120))
    tables = [_table(sweep_data.comparable, across, up, panels, option) for option in options]
    means = [m for table, _ in tables for m in itertools.chain(*table) if m is not None]
    ends = (min(means), max(means)) if means else (0.0, 1.0)
    columns = 3 if len(across.choices) <= 5 else 2
    rows = math.ceil(len(options) / columns)
    side = 90 + 42 * len(up.choices)
    places = grid_places(len(options), columns, (0.04, 0.35 / rows))
    data, axes, titles = [], {}, []
    for index, (option, (x, y)) in enumerate(zip(options, places, strict=True)):
        data.append(_panel(tables[index], across, up, index, ends))
        first = index % columns == 0
        x_names = {"domain": x, "anchor": numbered("y", index), **_names(across)}
        y_names = {"domain": y, "anchor": numbered("x", index), **_names(up)}
        axes[axis_key("x", index)] = axis(across.path, **x_names)
        title_here = up.path if first else ""
        axes[axis_key("y", index)] = axis(title_here, showticklabels=first, **y_names)
        if panels:
            place = {"x": sum(x) / 2, "y": y[1], "xanchor": "center", "yanchor": "bottom"}
            titles.append(annotation(f"{panels.path} = {plain(text(option))}", **place))
    bar = {"tickformat": ".0%", "title": {"text": plain(sweep_data.score)}, "outlinewidth": 0}
    scale = {"colorscale": SCALE, "cmin": ends[0], "cmax": ends[1], "colorbar": bar}
    return Chart(
        "heat",
        own if {across.path, up.path, panels.path if panels else ""} == set(_HEAT) else title,
        f"Mean val {sweep_data.score} after epoch {sweep_data.equal_epoch} of the "
        "trials with each combination, and how many there were. Empty cells and choices without a "
        "panel were never tried; a cell of one or two trials is weak evidence.",
        f"{count(len(options), 'panel')} of {title}.",
        data,
        layout(60 + rows * side + 60, coloraxis=scale, annotations=titles, **axes),
    )


def _tried(trials: pd.DataFrame, setting: Setting) -> list[Any]:
    return [choice for choice in setting.choices if (trials[setting.path] == choice).any()]


def _heat_settings(
    settings: Sequence[Setting],
) -> tuple[Setting | None, Setting | None, Setting | None]:
    """Freezing, upsampling and loss where they were searched, else other choices."""
    choices = {s.path: s for s in settings if s.choices}
    rest = [s for path, s in choices.items() if path not in _HEAT]
    usual = [choices[path] for path in _HEAT if path in choices]
    picked = [*usual, *rest][:3]
    across, up, panels = [*picked, None, None, None][:3]
    return across, up, panels


def _table(
    trials: pd.DataFrame, across: Setting, up: Setting, panels: Setting | None, option: Any
) -> tuple[list[list[float | None]], list[list[str]]]:
    here = trials[trials[panels.path] == option] if panels else trials
    means: list[list[float | None]] = []
    texts: list[list[str]] = []
    for row in up.choices:
        cells = [
            here.loc[(here[up.path] == row) & (here[across.path] == column), EQUAL]
            for column in across.choices
        ]
        means.append([round(float(cell.mean()), 4) if len(cell) else None for cell in cells])
        texts.append([f"{cell.mean():.1%}<br>n={len(cell)}" if len(cell) else "" for cell in cells])
    return means, texts


def _panel(
    table: tuple[list[list[float | None]], list[list[str]]],
    across: Setting,
    up: Setting,
    index: int,
    ends: tuple[float, float],
) -> dict[str, Any]:
    return {
        "type": "heatmap",
        "x": [plain(text(choice)) for choice in across.choices],
        "y": [plain(text(choice)) for choice in up.choices],
        "z": table[0],
        "text": table[1],
        "texttemplate": "%{text}",
        "xgap": 2,
        "ygap": 2,
        "hoverongaps": False,
        "coloraxis": "coloraxis",
        "xaxis": numbered("x", index),
        "yaxis": numbered("y", index),
        "hovertemplate": "%{x}, %{y}: %{text}<extra></extra>",
    }


def _names(setting: Setting) -> dict[str, Any]:
    """An axis with a position for each choice, also for those never tried."""
    names = [plain(text(choice)) for choice in setting.choices]
    order = {"categoryorder": "array", "categoryarray": names}
    return {"type": "category", "range": [-0.5, len(names) - 0.5], "showgrid": False, **order}
