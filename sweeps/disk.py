"""The size of a sweep's files, and their removal.

What is removed is named by a tag in the tracking store, which others may have written, so a
folder must look like a sweep's before anything in it is touched.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pyarrow import fs

from sweeps.ledger import FILE
from unetexp.errors import UserError

_SIGNS = {FILE, "sweep.json", "trials"}


def is_remote(place: str) -> bool:
    return "://" in place


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`, links not followed; 0 if there is none."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(where, name).lstat().st_size
            except FileNotFoundError:  # a running sweep's files come and go
                continue
    return total


def require_sweep_files(place: str, name: str) -> None:
    """Raise UserError unless `place` is gone, empty, or holds the files of the sweep `name`."""
    if is_remote(place):
        system, path = fs.FileSystem.from_uri(place)
        found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
        content = {info.base_name for info in found}
    else:
        folder = Path(place)
        if not folder.exists() and not folder.is_symlink():
            return
        if folder.is_symlink() or not folder.is_dir():
            raise _not_ours(place, name)
        content = {entry.name for entry in folder.iterdir()}
    if place.rstrip("/").rpartition("/")[2] != name or (content and not content & _SIGNS):
        raise _not_ours(place, name)


def remove_files(place: str) -> None:
    """Remove a folder, or what is below a URI; nothing happens where there is none."""
    if not is_remote(place):
        remove_folder(Path(place))
        return
    system, path = fs.FileSystem.from_uri(place)
    if system.get_file_info(path).type != fs.FileType.NotFound:
        system.delete_dir(path)


def remove_folder(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _not_ours(place: str, name: str) -> UserError:
    return UserError(
        f"{place} is recorded as the storage of sweep {name!r} but does not look like it. "
        "Nothing was deleted. Move that folder away, then delete the sweep again."
    )
