"""A leaderboard as text: blocks of columns as wide as the terminal, or a Markdown table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.cells import cell_len, set_cell_size
from rich.table import Table

from sweeps.config.metric_names import COST, LATENCY, PARAMETERS
from sweeps.leaderboard.ranking import Leaderboard
from sweeps.leaderboard.trials import PARETO, is_figure, score_columns

_GAP = 2
_MOST_BLOCKS = 4
_WIDEST = 28
_MISSING = "-"


@dataclass(frozen=True)
class _Column:
    name: str
    cells: tuple[str, ...]
    is_text: bool

    @property
    def heading(self) -> str:
        """The name, wrapped between its parts if its values are narrower."""
        parts = re.findall(r"[^./]+[./]?|[./]", self.name)
        space = max(6, *map(cell_len, self.cells), *map(cell_len, parts))
        lines = [""]
        for part in parts:
            if lines[-1] and cell_len(lines[-1] + part) > space:
                lines.append("")
            lines[-1] += part
        return "\n".join(map(_shortened, lines))

    @property
    def width(self) -> int:
        lines = [*self.heading.split("\n"), *map(_shortened, self.cells)]
        return max(map(cell_len, lines))

    @property
    def is_shortened(self) -> bool:
        return any(cell_len(cell) > _WIDEST for cell in self.cells)


def blocks(board: Leaderboard, width: int) -> tuple[list[Table], tuple[str, ...]]:
    """The leaderboard as tables at most `width` wide, one below the other, and notes on omissions.

    Each table repeats the columns that identify the trials.
    """
    keys, columns = _columns(board, with_sweep=board.rows["sweep"].nunique() > 1)
    space = width - sum(key.width + _GAP for key in keys)
    grouped: list[list[_Column]] = [[]]
    for column in columns:
        used = sum(other.width + _GAP for other in grouped[-1])
        if grouped[-1] and used + column.width > space:
            grouped.append([])
        grouped[-1].append(column)
    left_out = sum(map(len, grouped[_MOST_BLOCKS:]))
    notes = []
    if left_out:
        notes.append(f"{left_out} more columns are not shown here.")
    if any(column.is_shortened for column in [*keys, *columns]):
        notes.append("Values that end in … are shortened.")
    if notes:
        notes[-1] += " --format csv has everything."
    return [_table([*keys, *group]) for group in grouped[:_MOST_BLOCKS]], tuple(notes)


def markdown(board: Leaderboard) -> str:
    """The leaderboard as one Markdown table, with its notes below."""
    keys, columns = _columns(board, with_sweep=True)
    every = [*keys, *columns]
    lines = [
        [column.name for column in every],
        ["---" if column.is_text else "---:" for column in every],
        *zip(*(column.cells for column in every), strict=True),
    ]
    rows = ["| " + " | ".join(map(_markdown_cell, line)) + " |" for line in lines]
    return "\n".join([*rows, *(f"\n{_markdown_cell(note)}" for note in board.notes)]) + "\n"


def _columns(board: Leaderboard, with_sweep: bool) -> tuple[list[_Column], list[_Column]]:
    """The columns that identify the trials, and the others."""
    rows = board.rows
    ranks = [str(number) for number in range(1, len(rows) + 1)]
    keys = [_Column("rank", tuple(ranks), False)]
    keys += [_text_column(rows, name) for name in (["sweep"] if with_sweep else []) + ["trial"]]
    hidden = ("sweep", "trial", "run_id", "full_budget", "epochs", "budget", "best/epoch")
    shown = [name for name in rows if name not in hidden and not is_figure(name)]
    columns = [_text_column(rows, name) for name in shown]
    marks = ["" if full else "*" for full in rows["full_budget"]]
    used = [
        f"{epochs}/{budget}{mark}"
        for epochs, budget, mark in zip(rows["epochs"], rows["budget"], marks, strict=True)
    ]
    scores = score_columns(rows)
    first = [column for column in columns if column.name in scores]
    rest = [column for column in columns if column.name not in scores]
    return keys, [*first, _Column("epochs", tuple(used), False), *rest]


def _text_column(rows: pd.DataFrame, name: str) -> _Column:
    column = rows[name]
    is_number = pd.api.types.is_numeric_dtype(column) and column.dtype != bool
    cells = tuple(_MISSING if pd.isna(value) else _cell(name, value) for value in column)
    return _Column(name, cells, is_text=not is_number)


def _cell(name: str, value: Any) -> str:
    if name == PARETO:
        return "yes" if value else ""
    if name == PARAMETERS:
        return f"{value / 1e6:.1f}M" if value >= 1e5 else str(value)
    if name in (LATENCY, COST):
        return f"{value:.1f}" if value < 100 else f"{value:.0f}"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4f}" if name.startswith(("val/", "best/")) else f"{value:.3g}"


def _table(columns: Sequence[_Column]) -> Table:
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column.heading,
            justify="left" if column.is_text else "right",
            no_wrap=True,
            vertical="bottom",
        )
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(_shortened, cells))
    return table


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if cell_len(text) <= _WIDEST else set_cell_size(text, _WIDEST - 1) + "…"


def _markdown_cell(text: str) -> str:
    return re.sub(r"([\\|*`<>])", r"\\\1", " ".join(text.split()))
