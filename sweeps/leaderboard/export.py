"""A leaderboard as bytes, for a file or another program."""

from __future__ import annotations

import json
from enum import StrEnum
from io import BytesIO, StringIO
from pathlib import Path

import pandas as pd
from rich.console import Console

from sweeps.leaderboard.ranking import Leaderboard
from sweeps.leaderboard.text_table import blocks, markdown
from unetexp.errors import ConfigError, not_a_choice

_FILE_WIDTH = 160


class TableFormat(StrEnum):
    """The formats of a leaderboard."""

    TABLE = "table"
    CSV = "csv"
    PARQUET = "parquet"
    JSON = "json"
    MARKDOWN = "markdown"


_ENDINGS = {
    ".csv": TableFormat.CSV,
    ".json": TableFormat.JSON,
    ".md": TableFormat.MARKDOWN,
    ".parquet": TableFormat.PARQUET,
    ".txt": TableFormat.TABLE,
}


def format_of(asked: TableFormat | None, out: Path | None) -> TableFormat:
    """The format asked for, or that of the file's ending; ConfigError for an unknown ending."""
    if asked is not None or out is None:
        return asked or TableFormat.TABLE
    if out.suffix.lower() not in _ENDINGS:
        where = f"--out {out}: its ending"
        raise ConfigError(f"{not_a_choice(where, out.suffix, _ENDINGS)}; or give --format.")
    return _ENDINGS[out.suffix.lower()]


def encode(board: Leaderboard, chosen: TableFormat) -> bytes:
    """The leaderboard in a format; CSV, Parquet and JSON hold all columns and no notes."""
    rows = board.rows
    match chosen:
        case TableFormat.CSV:
            return str(rows.to_csv(index=False)).encode()
        case TableFormat.PARQUET:
            buffer = BytesIO()
            rows.to_parquet(buffer, index=False)
            return buffer.getvalue()
        case TableFormat.JSON:
            return _json(rows).encode()
        case TableFormat.MARKDOWN:
            return markdown(board).encode()
        case TableFormat.TABLE:
            return _text(board).encode()


def _json(rows: pd.DataFrame) -> str:
    """A list of objects, one per trial; missing values are null."""
    plain = rows.astype(object).where(rows.notna(), None)
    return json.dumps(plain.to_dict("records"), indent=2, ensure_ascii=False) + "\n"


def _text(board: Leaderboard) -> str:
    text = StringIO()
    console = Console(
        file=text, width=_FILE_WIDTH, highlight=False, markup=False, emoji=False, soft_wrap=True
    )
    tables, notes = blocks(board, _FILE_WIDTH)
    for table in tables:
        console.print(table)
        console.print()
    for note in (*notes, *board.notes):
        console.print(note)
    return text.getvalue()
