"""The rows of a table of images and masks, checked, with the places of their files."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unetexp.data.formats.remote import is_uri
from unetexp.data.formats.tables import Table
from unetexp.errors import DataError, did_you_mean, listed

_SAID = {  # how tables name the splits
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Columns:
    """Which columns hold what; None: a column of the usual name where there is one."""

    images: tuple[str, ...]  # several are the channels of one image
    images_field: str  # the setting that names them
    mask: str
    split: str | None
    group: str | None

    def required(self) -> dict[str, str]:
        """The setting that names each column that must be there."""
        return {
            **dict.fromkeys(self.images, self.images_field),
            self.mask: "mask_column",
            **({self.split: "split_column"} if self.split else {}),
            **({self.group: "group_column"} if self.group else {}),
        }


@dataclass(frozen=True)
class Row:
    """A row as it is meant: places are absolute paths or URIs, "" for a file there is none of."""

    number: int  # from 1, without the header
    images: tuple[str, ...]
    mask: str
    split: str = ""
    group: str = ""

    @property
    def image(self) -> str:
        """The first image file there is."""
        return next(place for place in self.images if place)


def spelled(columns: Columns, table: Table) -> Columns:
    """The columns as the table spells them, where they differ in case only."""
    known = {name.lower(): name for name in reversed(table.columns)}

    def own(name: str | None, usual: str = "") -> str | None:
        if name is None:  # of the usual name, where there is one
            return known[usual] if usual in known and usual not in table.columns else None
        return name if name in table.columns else known.get(name.lower(), name)

    return Columns(
        images=tuple(own(name) or name for name in columns.images),
        images_field=columns.images_field,
        mask=own(columns.mask) or columns.mask,
        split=own(columns.split, "split"),
        group=own(columns.group, "group"),
    )


def rows_of(table: Table, columns: Columns, base: str) -> list[Row]:
    """The rows; relative paths begin at `base`, a folder or a URI. Raises DataError."""
    _check_columns(table, columns.required())
    split, group = columns.split or "split", columns.group or "group"
    rows = [
        Row(
            number,
            tuple(_resolved(cells[name], base) for name in columns.images),
            _resolved(cells[columns.mask], base),
            cells.get(split, ""),
            cells.get(group, ""),
        )
        for number, cells in enumerate(table.rows, 1)
    ]
    _check_cells(table.path, rows)
    _check_once(table.path, rows)
    if split not in table.columns:
        return rows
    _check_splits(table.path, rows, split)
    return [replace(row, split=_SAID[row.split.lower()]) for row in rows]


def _resolved(cell: str, base: str) -> str:
    if not cell or is_uri(cell) or Path(cell).is_absolute():
        return cell
    return f"{base.rstrip('/')}/{cell}" if is_uri(base) else str(Path(base) / cell)


def _check_columns(table: Table, fields: Mapping[str, str]) -> None:
    for name, field in fields.items():
        if name not in table.columns:
            raise DataError(
                f"{table.path}: there is no column {name!r} (data.{field})."
                f"{did_you_mean(name, table.columns)} The table has: {', '.join(table.columns)}. "
                f"Name the right one: --set data.{field}="
                + ("'[NAME, NAME]'" if field == "image_columns" else "NAME")
            )


def _check_cells(path: Path, rows: Sequence[Row]) -> None:
    for what, alone in (
        ("image", [row.number for row in rows if not any(row.images)]),
        ("mask", [row.number for row in rows if not row.mask]),
    ):
        if alone:
            raise DataError(
                f"{path}: {len(alone)} of the {len(rows)} rows name no {what} (row "
                f"{listed(alone)}): fill the cells, or remove the rows."
            )


def _check_once(path: Path, rows: Sequence[Row]) -> None:
    places: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for row in rows:
        places[row.images].append(row.number)
    twice = [f"{listed(images)} (rows {listed(at)})" for images, at in places.items() if at[1:]]
    if twice:
        raise DataError(
            f"{path}: {len(twice)} images stand in more than one row: {listed(twice)}. Keep one "
            "row of each."
        )


def _check_splits(path: Path, rows: Sequence[Row], column: str) -> None:
    unknown = Counter(row.split for row in rows if row.split.lower() not in _SAID)
    if unknown:
        examples = {name: row.number for row in reversed(rows) if (name := row.split) in unknown}
        told = [
            f"{repr(name) if name else 'nothing'} in {count} (row {examples[name]})"
            for name, count in unknown.most_common()
        ]
        raise DataError(
            f"{path}: the column {column!r} must hold train, val or test in every row. It holds "
            f"{listed(told)}.{did_you_mean(next(iter(examples)), _SAID)} Correct the rows, or "
            "rename the column to have the splits drawn."
        )
