"""The user's own images, named by a table with a row each.

    image,mask,split,group
    scans/0001.png,masks/0001.png,train,patient 7
    s3://bucket/0002.png,s3://bucket/0002_mask.png,val,patient 9

Paths are relative to the table's folder, or to `root`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from unetexp.data.collection import SPLITS, Progress
from unetexp.data.files.entries import entries_of
from unetexp.data.files.file_sample import FileSample, Listing
from unetexp.data.files.given_splits import given_splits
from unetexp.data.formats.manifest_rows import Columns, Row, rows_of, spelled
from unetexp.data.formats.remote import fetched, fetched_folder, fetched_if_there, is_uri
from unetexp.data.formats.tables import SUFFIXES, Table, read_table
from unetexp.data.formats.windows_paths import as_here
from unetexp.data.sources.file_source import FileSource, absolute
from unetexp.data.sources.folder import CLASSES_FILE, read_class_names
from unetexp.errors import DataError, listed


def _place(given: str) -> str:
    return given if is_uri(given) else absolute(given)


Place = Annotated[str, Field(min_length=1), AfterValidator(_place)]
Column = Annotated[str, Field(min_length=1)]


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
        tables = [root] if root.is_file() else [p for p in entries_of(root) if p.is_file()]
        found = [path for path in tables if _names_pairs(path)]
        return found[0] if len(found) == 1 else None

    def listing(self, on_progress: Progress | None = None) -> Listing:
        """The table's rows, their remote files fetched."""
        table, base = self._table(on_progress)
        columns = spelled(self._columns(), table)
        table, said = as_here(table, [*columns.images, columns.mask], base)
        rows = rows_of(table, columns, base)
        files = _files(table.path, rows, base, on_progress)
        samples = _samples(rows, files, base)
        names = self._class_names()
        notes = (*said, *_notes(rows, self.image_columns))
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

    def _class_names(self) -> tuple[str, ...] | None:
        """The names in classes.txt beside the table."""
        if not is_uri(self.path):
            return read_class_names(Path(self.path).with_name(CLASSES_FILE))
        path = fetched_if_there(f"{self.path.rpartition('/')[0]}/{CLASSES_FILE}")
        return read_class_names(path) if path else None

    def _columns(self) -> Columns:
        return Columns(
            images=self.image_columns or (self.image_column,),
            images_field="image_columns" if self.image_columns else "image_column",
            mask=self.mask_column,
            split=self.split_column,
            group=self.group_column,
        )


def _names_pairs(path: Path) -> bool:
    """Whether a table has the columns image and mask."""
    if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
        return False
    try:
        return {"image", "mask"} <= {name.lower() for name in read_table(path).columns}
    except DataError:
        return False


def _files(
    path: Path, rows: Sequence[Row], base: str, on_progress: Progress | None
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


def _samples(rows: Sequence[Row], files: Mapping[str, Path], base: str) -> list[FileSample]:
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


def _notes(rows: Sequence[Row], image_columns: Sequence[str] | None) -> tuple[str, ...]:
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
