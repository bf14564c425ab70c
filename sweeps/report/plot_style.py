"""Shared by all plots of a report: colours, axes, layout.

A plot is plotly's data and layout as dicts. Colours are CSS variables of the page (`var(--ink)`),
which the page's script resolves for light mode, dark mode and print. The palette is Okabe and
Ito's; shapes and dashes carry the same information as colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

INK, MUTED, GRID, PAPER = "var(--ink)", "var(--muted)", "var(--grid)", "var(--paper)"
BLUE, ORANGE, GREEN = "var(--blue)", "var(--orange)", "var(--green)"
PINK, RED = "var(--pink)", "var(--red)"
SCALE = "Cividis"
ABSENT, TIMES = "\N{EN DASH}", " \N{MULTIPLICATION SIGN} "
FULL, PARTIAL = "full budget", "partial budget"
HATCH = {"fillmode": "overlay", "fgcolor": PAPER, "size": 6}
LINES = ((BLUE, "solid"), (ORANGE, "dash"), (GREEN, "dot"), (PINK, "dashdot"), (RED, "longdash"))
MARKS = ("circle", "square", "diamond", "triangle-up", "x")


@dataclass(frozen=True)
class Chart:
    """One plot with its title and texts."""

    key: str
    title: str
    caption: str  # how to read it
    summary: str  # a description for screen readers
    data: list[dict[str, Any]]
    layout: dict[str, Any]


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    lines = {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GRID, "tickcolor": GRID}
    return {"title": {"text": title}, "automargin": True, "zeroline": False, **lines, **more}


def percent(title: str, **more: Any) -> dict[str, Any]:
    return axis(title, tickformat=".0%", **more)


def layout(height: int, **more: Any) -> dict[str, Any]:
    return {
        "height": height,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": INK, "family": "system-ui, sans-serif", "size": 12},
        "margin": {"l": 60, "r": 20, "t": 30, "b": 50},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": MUTED, "font": {"color": INK}},
        "hovermode": "closest",
        **more,
    }


def annotation(text: str, **place: Any) -> dict[str, Any]:
    """A text in the plot, by default in its centre."""
    middle = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper", "showarrow": False}
    return {"text": text, "font": {"color": INK}, **middle, **place}


def mark(full: bool, colour: str = BLUE, size: int = 8) -> dict[str, Any]:
    """The marker of full-budget trials, filled, or of others, an open diamond."""
    if full:
        return {"symbol": "circle", "color": colour, "size": size}
    line = {"width": 1.5, "color": MUTED}
    return {"symbol": "diamond-open", "color": MUTED, "size": size, "line": line}


def trial_points(
    trials: pd.DataFrame, full: bool, index: int, x: Any, score: str
) -> dict[str, Any]:
    """Trials as points of panel `index`, `x` against column `score`; all full-budget or none."""
    name = FULL if full else PARTIAL
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "legendgroup": name,
        "showlegend": index == 0,
        "x": x.tolist(),
        "y": trials[score].round(4).tolist(),
        "text": trials["label"].tolist(),
        "marker": mark(full, size=7),
        "opacity": 0.8,
        "xaxis": numbered("x", index),
        "yaxis": numbered("y", index),
    }


def grid_places(
    count: int, columns: int, gap: tuple[float, float] = (0.08, 0.16)
) -> list[tuple[list[float], list[float]]]:
    """The x and y domains of `count` panels, row by row from the top."""
    columns = min(columns, count)
    rows = -(-count // columns)
    width = (1 - gap[0] * (columns - 1)) / columns
    height = (1 - gap[1] * (rows - 1)) / rows
    places = []
    for index in range(count):
        row, column = divmod(index, columns)
        left, top = column * (width + gap[0]), 1 - row * (height + gap[1])
        right, bottom = min(1.0, left + width), max(0.0, top - height)
        places.append(([left, right], [bottom, top]))
    return places


def numbered(letter: str, index: int) -> str:
    """plotly's name of the axis with an index: x, x2, x3, ..."""
    return letter if index == 0 else f"{letter}{index + 1}"


def axis_key(letter: str, index: int) -> str:
    return f"{letter}axis" if index == 0 else f"{letter}axis{index + 1}"


def plain(name: str) -> str:
    """A name that plotly shows literally; it would interpret tags and entities."""
    left = "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}"
    right = "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"
    without_tags = name.replace("<", left).replace(">", right)
    return without_tags.replace("&", "\N{FULLWIDTH AMPERSAND}")


def gaps(series: Sequence[Sequence[Any]]) -> list[Any]:
    """Several lines as one, None between them."""
    joined: list[Any] = []
    for values in series:
        joined += [*values, None]
    return joined
