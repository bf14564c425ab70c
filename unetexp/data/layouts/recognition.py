"""What a place is: a kind of data set that is known by its files' names, or a folder of images."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unetexp.component import Component, Tree
from unetexp.data.formats.tables import SUFFIXES as TABLES
from unetexp.data.layouts.layout import (
    Layout,
    files_of,
    guessed,
    holds_images,
    layouts_of,
    wrapped,
)
from unetexp.data.layouts.paired_files import Files
from unetexp.data.layouts.scanning import Scan
from unetexp.errors import DataError


def recognised(place: str, kinds: Iterable[type[Component]], wanted: str | None = None) -> Tree:
    """The fields of the source that `place` is: a kind's name, a folder, a file or a URI.

    `kinds` are the kinds of sources; one that has `looks_like(folder)` is asked. `wanted` is the
    kind where it is set. A place that does not exist counts as a folder; who opens it says so.
    Raises DataError where two kinds are possible, and for a file that is no table.
    """
    by_name = {kind.model_fields["kind"].default: kind for kind in kinds}
    if place in by_name and place != "folder":
        return {"kind": place}
    if "://" in place:
        return _tree("manifest", by_name["manifest"], place) if "manifest" in by_name else {}
    path = Path(os.path.expanduser(place))  # noqa: PTH111 - which leaves an unknown user as it is
    if wanted is not None and wanted in by_name:
        inside = _kinds_of(path, {wanted: by_name[wanted]})
        return _tree(wanted, by_name[wanted], str(inside.get(wanted, place)))
    found = _kinds_of(path, by_name)
    if not found and path.is_file() and path.suffix.lower() in TABLES and "manifest" in by_name:
        return _tree("manifest", by_name["manifest"], place)  # which says which columns are missing
    if not found and path.is_file() and wanted is None:
        raise DataError(
            f"{path.absolute()} is a file, not a folder. Give the folder that holds images and "
            "masks, or a table (CSV or Parquet) with the columns image and mask."
        )
    if len(found) > 1:
        raise DataError(
            f"{path.absolute()} can be read as {' or as '.join(found)}. Say which is meant:\n"
            + "\n".join(f"  --set data.kind={name}" for name in found)
        )
    for name, where in found.items():
        if getattr(by_name[name], "draws_masks", False) and "folder" in by_name:
            _check_no_masks(name, where)
        return _tree(name, by_name[name], str(where))
    return {"kind": "folder", "root": place}


def _check_no_masks(name: str, where: Path) -> None:
    """Raise DataError where a kind that draws its masks is also a folder of images with masks."""
    as_folder = _complete_readings(where)
    if as_folder:
        raise DataError(
            f"{where.absolute()} can be read in two ways. Say which is meant:\n"
            f"  as {name}, masks drawn from its annotations: --set data.kind={name}\n"
            f"  as folder, {' or '.join(as_folder)}: --set data.kind=folder"
        )


def _complete_readings(root: Path) -> list[str]:
    """What `root` is as a folder of images with image files as masks, in words; [] if it is not.

    Only readings in which every file has its partner count.
    """
    scan, found = Scan(root), []
    for layout in layouts_of(wrapped(root)):
        if any(part.masks is not None and not holds_images(part.masks) for part in layout.parts):
            continue
        files = guessed(layout, scan) if layout.guess else _read(layout, scan)
        if files is not None and files.match.complete:
            found.append(f"{len(files.match.pairs)} pairs: {layout.describe(root)}")
    return found


def _read(layout: Layout, scan: Scan) -> Files | None:
    try:
        return files_of(layout, scan)
    except DataError:
        return None


def _kinds_of(path: Path, by_name: dict[str, type[Component]]) -> dict[str, Path]:
    """The kinds that say of the place, or of the only folder in it, that it is one of theirs."""
    places = [path]
    if path.is_dir():
        places = list(dict.fromkeys((path, wrapped(path))))
    for where in places if path.exists() else []:
        found = {}
        for name, kind in by_name.items():
            looks_like = getattr(kind, "looks_like", None)
            if looks_like is not None and looks_like(where):
                found[name] = where
        if "manifest" in found:  # it says itself what is meant, also of a folder of images
            return {"manifest": where}
        if found:
            return found
    return {}


def _tree(name: str, kind: type[Component], place: str) -> dict[str, Any]:
    if "path" in kind.model_fields:
        table_in = getattr(kind, "found_in", None)
        table = table_in(Path(place)) if table_in and "://" not in place else None
        return {"kind": name, "path": str(table or place)}
    return {"kind": name, "root": place}
