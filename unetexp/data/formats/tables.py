"""Tables of text: CSV, TSV, Parquet and JSON lines, each cell as a string."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unetexp.errors import DataError, listed

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")


@dataclass(frozen=True)
class Table:
    """Rows in the file's order; an empty or missing cell is an empty string."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]


def read_table(path: Path) -> Table:
    """The table in `path`; its extension names its form. Raises DataError."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"{path}: {suffix or 'a name without extension'} is not the form of a table. Allowed: "
            f"{', '.join(SUFFIXES)}."
        )
    try:
        if suffix == ".parquet":
            columns, rows = _parquet(path)
        elif suffix in (".jsonl", ".ndjson"):
            columns, rows = _json_lines(path)
        else:
            columns, rows = _delimited(path, "\t" if suffix == ".tsv" else None)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Give the path of the table.") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: this file is not UTF-8 text. Save it as UTF-8.") from None
    except OSError as error:
        raise DataError(f"{path}: this file cannot be read: {error.strerror or error}.") from None
    if not rows:
        raise DataError(f"{path}: this table has no rows. Name one image and its mask in each.")
    return Table(path, tuple(columns), tuple(rows))


Rows = tuple[list[str], list[Mapping[str, str]]]


def _delimited(path: Path, delimiter: str | None) -> Rows:
    """A table with a header; without `delimiter` the header shows which one is used."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        file.seek(0)
        delimiter = delimiter or max(",;\t", key=header.count)
        try:
            lines = [line for line in csv.reader(file, delimiter=delimiter, strict=True) if line]
        except csv.Error as error:
            raise DataError(f"{path}: this table is damaged: {error}.") from None
    if not lines:
        return [], []
    columns = [name.strip() for name in lines[0]]
    _check_columns(path, columns)
    for number, line in enumerate(lines[1:], 1):
        if len(line) != len(columns):
            raise DataError(
                f"{path}: row {number} has {len(line)} cells, the header {len(columns)} "
                f"({listed(columns)}). Put cells that hold a {delimiter!r} into quotes."
            )
    rows = [dict(zip(columns, (cell.strip() for cell in line), strict=True)) for line in lines[1:]]
    return columns, list(rows)


def _check_columns(path: Path, columns: list[str]) -> None:
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise DataError(f"{path}: the header names {listed(twice)} more than once: rename one.")


def _parquet(path: Path) -> Rows:
    import pyarrow  # half a second, for this form only
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
        raise DataError(f"{path}: this is not a Parquet file, or it is damaged: {error}") from None
    columns = list(table.column_names)
    _check_columns(path, columns)
    return columns, _texts(path, columns, table.to_pylist())


def _json_lines(path: Path) -> Rows:
    objects: list[Mapping[str, Any]] = []
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}: line {number} is not JSON: {error}.") from None
        if not isinstance(row, dict):
            raise DataError(
                f'{path}: line {number} is no object such as {{"image": "a.png", "mask": "b.png"}}.'
            )
        objects.append(row)
    columns = list(dict.fromkeys(name for row in objects for name in row))
    return columns, _texts(path, columns, objects)


def _texts(
    path: Path, columns: list[str], rows: Iterable[Mapping[str, Any]]
) -> list[Mapping[str, str]]:
    texts: list[Mapping[str, str]] = []
    for number, row in enumerate(rows, 1):
        cells = {name: row.get(name) for name in columns}
        for name, cell in cells.items():
            if isinstance(cell, (list, dict, bytes)):
                raise DataError(
                    f"{path}: row {number}, {name} holds {cell!r}. A cell is text or a number: "
                    "give each path a column of its own (data.image_columns)."
                )
        texts.append({n: "" if cell is None else str(cell).strip() for n, cell in cells.items()})
    return texts
