"""The user's own images, named by a table with a row each.

    image,mask,split,group
    scans/0001.png,masks/0001.png,train,patient 7
    s3://bucket/0002.png,s3://bucket/0002_mask.png,val,patient 9

Paths are relative to the table's folder, or to `root`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from unetexp.data.collection import SPLITS, Progress
from unetexp.data.files.file_sample import FileSample, Listing
from unetexp.data.formats.given_splits import given_splits
from unetexp.data.formats.remote import fetched, fetched_folder, is_uri
from unetexp.data.formats.tables import SUFFIXES, Table, read_table
from unetexp.data.sources.file_source import FileSource, absolute
from unetexp.data.sources.folder import CLASSES_FILE, read_class_names
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


def _place(given: str) -> str:
    return given if is_uri(given) else absolute(given)


Place = Annotated[str, Field(min_length=1), AfterValidator(_place)]
Column = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True)
class _Row:
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


class Manifest(FileSource):
    """Images and masks named in a CSV, TSV, Parquet or JSON lines file, here or at URIs.

    Files at URIs such as s3:// are fetched once a node. classes.txt beside the table names the
    classes, one a line. The masks are read as those of a folder.
    """

    first_fields: ClassVar[tuple[str, ...]] = ("kind", "path")

    kind: Literal["manifest"] = "manifest"
    path: Place = Field(
        description="the table, .csv, .tsv, .parquet or .jsonl, as a path (stored as an absolute "
        "one) or a URI"
    )
    root: Place | None = Field(
        None,
        description="the folder or URI that the table's paths begin at; null: the table's folder",
    )
    image_column: Column = Field("image", description="the column with the image's path or URI")
    image_columns: tuple[Column, ...] | None = Field(
        None,
        min_length=1,
        description="several columns whose files are the channels of one image, in this order; "
        "null: image_column alone",
    )
    mask_column: Column = Field("mask", description="the column with the mask's path or URI")
    split_column: Column | None = Field(
        None,
        description="the column with train, val or test; null: the column `split` where there is "
        "one, else the splits are drawn",
    )
    group_column: Column | None = Field(
        None,
        description="the column with the patient, site or video: a drawn split keeps a group "
        "together; null: the column `group` where there is one",
    )

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """Whether `root` is a table with image and mask, or a folder that holds one."""
        return cls.found_in(root) is not None

    @classmethod
    def found_in(cls, root: Path) -> Path | None:
        """The table that `root` is, or the only one of images and masks in that folder."""
        tables = [root] if root.is_file() else [p for p in _entries(root) if p.is_file()]
        found = [path for path in tables if _names_pairs(path)]
        return found[0] if len(found) == 1 else None

    def listing(self, on_progress: Progress | None = None) -> Listing:
        """The table's rows, their remote files fetched."""
        table, base = self._table(on_progress)
        rows = self._rows(table, base)
        _check_once(table.path, rows)
        files = _files(table.path, rows, base, on_progress)
        samples = _samples(rows, files, base)
        names = read_class_names(Path(table.path).with_name(CLASSES_FILE))
        notes = _notes(rows, self.image_columns)
        # fetched files keep their names on every machine, wherever its cache folder is
        remote = all(is_uri(place) for row in rows for place in (*row.images, row.mask) if place)
        root = fetched_folder() if remote else Path(table.path).parent
        if not any(row.split for row in rows):
            return Listing(root, {}, samples, names, "seeded", notes)
        splits = {
            split: [s for s, row in zip(samples, rows, strict=True) if row.split == split]
            for split in SPLITS
            if any(row.split == split for row in rows)
        }
        if "train" not in splits:
            raise DataError(f"{table.path}: no row is of the split train: there is no training.")
        return given_splits(
            root, splits, names, test_fraction=self.test_fraction, method="manifest", notes=notes
        )

    def _table(self, on_progress: Progress | None) -> tuple[Table, str]:
        """The table, and the folder or URI that its paths begin at."""
        path = Path(self.path)
        if is_uri(self.path):
            path = fetched([self.path], on_progress)[self.path]
        base = self.root or self.path[: self.path.replace("\\", "/").rindex("/")] or "/"
        return read_table(path), base

    def _rows(self, table: Table, base: str) -> list[_Row]:
        images = self.image_columns or (self.image_column,)
        fields = {
            **dict.fromkeys(images, "image_columns" if self.image_columns else "image_column"),
            self.mask_column: "mask_column",
            **({self.split_column: "split_column"} if self.split_column else {}),
            **({self.group_column: "group_column"} if self.group_column else {}),
        }
        _check_columns(table, fields)
        split, group = self.split_column or "split", self.group_column or "group"
        rows = [
            _Row(
                number,
                tuple(_resolved(cells[name], base) for name in images),
                _resolved(cells[self.mask_column], base),
                cells.get(split, ""),
                cells.get(group, ""),
            )
            for number, cells in enumerate(table.rows, 1)
        ]
        _check_cells(table.path, rows)
        return _with_known_splits(table.path, rows, split, given=split in table.columns)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _names_pairs(path: Path) -> bool:
    """Whether a table has the columns image and mask."""
    if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
        return False
    try:
        return {"image", "mask"} <= set(read_table(path).columns)
    except DataError:
        return False


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


def _check_cells(path: Path, rows: Sequence[_Row]) -> None:
    for what, alone in (
        ("image", [row.number for row in rows if not any(row.images)]),
        ("mask", [row.number for row in rows if not row.mask]),
    ):
        if alone:
            raise DataError(
                f"{path}: {len(alone)} of the {len(rows)} rows name no {what} (row "
                f"{listed(alone)}): fill the cells, or remove the rows."
            )


def _with_known_splits(path: Path, rows: Sequence[_Row], column: str, *, given: bool) -> list[_Row]:
    """The rows with train, val or test for what the table calls them."""
    unknown = Counter(row.split for row in rows if row.split.lower() not in _SAID)
    if given and unknown:
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
    return [
        _Row(row.number, row.images, row.mask, _SAID.get(row.split.lower(), ""), row.group)
        for row in rows
    ]


def _check_once(path: Path, rows: Sequence[_Row]) -> None:
    places: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for row in rows:
        places[row.images].append(row.number)
    twice = [f"{listed(images)} (rows {listed(at)})" for images, at in places.items() if at[1:]]
    if twice:
        raise DataError(
            f"{path}: {len(twice)} images stand in more than one row: {listed(twice)}. Keep one "
            "row of each."
        )


def _files(
    path: Path, rows: Sequence[_Row], base: str, on_progress: Progress | None
) -> dict[str, Path]:
    """Where each place's file lies on this machine."""
    places = [place for row in rows for place in (*row.images, row.mask) if place]
    files = fetched([place for place in places if is_uri(place)], on_progress)
    files |= {place: Path(place) for place in places if not is_uri(place)}
    missing = [
        f"{place} (row {row.number})"
        for row in rows
        for place in (*row.images, row.mask)
        if place and not files[place].is_file()
    ]
    if missing:
        count = len({text.rpartition("(")[2] for text in missing})
        raise DataError(
            f"{path}: {count} of the {len(rows)} rows name files that do not exist: "
            f"{listed(missing)}. Relative paths begin at {base}; --set data.root=FOLDER changes it."
        )
    return files


def _samples(rows: Sequence[_Row], files: Mapping[str, Path], base: str) -> list[FileSample]:
    return [
        FileSample(
            name,
            tuple(files[place] if place else None for place in row.images),
            files[row.mask],
            group=row.group,
        )
        for row, name in zip(rows, _names([row.image for row in rows], base), strict=True)
    ]


def _names(places: Sequence[str], base: str) -> list[str]:
    """A name for each image: that of its file, or with its folders where those repeat."""
    below = [
        PurePosixPath(urlsplit(place).path if is_uri(place) else place.removeprefix(base))
        for place in places
    ]
    for name_of in (
        lambda path: path.stem,
        lambda path: "_".join(path.with_suffix("").parts).strip("/_"),
        lambda path: "_".join(path.parts).strip("/_"),
    ):
        names: list[str] = [name_of(path) for path in below]
        if len(set(names)) == len(names):
            return names
    return [f"{number:06d}_{path.stem}" for number, path in enumerate(below, 1)]


def _notes(rows: Sequence[_Row], image_columns: Sequence[str] | None) -> tuple[str, ...]:
    notes = []
    if image_columns and len(image_columns) > 1:
        notes.append(f"The channels of an image are the columns {', '.join(image_columns)}.")
    groups = {row.group for row in rows} - {""}
    alone = sum(not row.group for row in rows)
    if groups and alone:
        notes.append(f"{alone} rows name no group: each counts as a group of its own.")
    shared = len(rows) - len({row.mask for row in rows})
    if shared:
        notes.append(f"{shared} rows name a mask that an earlier row names too.")
    return tuple(notes)
