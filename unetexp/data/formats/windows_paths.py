"""Paths that a table brings from Windows: backslashes, and drives that are not here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unetexp.data.formats.remote import is_uri
from unetexp.data.formats.tables import Table

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def as_here(table: Table, columns: Sequence[str], base: str) -> tuple[Table, tuple[str, ...]]:
    """The table with the paths in `columns` as they are on this machine, and notes about it.

    Of a path with a drive that folder is left out below which all files lie in `base`.
    """
    cells = {row[name] for row in table.rows for name in columns if row.get(name)}
    strange = {cell for cell in cells if "\\" in cell or _DRIVE.match(cell)}
    if not strange or is_uri(base):
        return table, ()
    places = {cell: _forward(cell, base) for cell in strange}
    with_drive = [cell for cell in strange if _DRIVE.match(cell)]
    notes: tuple[str, ...] = ()
    if with_drive:
        parts = {cell: places[cell].split("/") for cell in with_drive}
        depth = _common(list(parts.values()), base)
        if depth:
            places |= {cell: "/".join(found[depth:]) for cell, found in parts.items()}
            folder = "\\".join(parts[with_drive[0]][:depth])
            notes = (f"The table's paths are of Windows; {folder} is read as {base}.",)
    rows = [{name: places.get(cell, cell) for name, cell in row.items()} for row in table.rows]
    return replace(table, rows=tuple(rows)), notes


def _forward(cell: str, base: str) -> str:
    """The cell with slashes, unless a file has that name with its backslashes."""
    return cell if (Path(base) / cell).exists() else cell.replace("\\", "/")


def _common(paths: Sequence[Sequence[str]], base: str) -> int:
    """How many folders all paths share that do not exist below `base`, and what follows does."""
    first = paths[0]
    for depth in range(1, len(first)):
        shared = all(list(path[:depth]) == list(first[:depth]) for path in paths)
        if not shared:
            return 0
        if all(Path(base, *path[depth:]).is_file() for path in paths):
            return depth
    return 0
