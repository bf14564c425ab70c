"""The files in a folder of images and in a folder of masks, and their pairs."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection
from pathlib import Path

from unetexp.data.files.file_sample import FileSample
from unetexp.data.reading.formats.detection import SUFFIXES
from unetexp.errors import DataError, did_you_mean, listed

_JUNK = {"thumbs.db", "desktop.ini", "__macosx"}


def pair_files(root: Path, folder: Path) -> list[FileSample]:
    """The pairs of `folder`/images and `folder`/masks, by stem, in the order of their names.

    Raises DataError for a folder that is missing or empty, a file that does not belong there, is
    reached through a link out of `root`, or has no partner, and for two files of one stem.
    """
    images = _files_by_stem(root, folder / "images", "images")
    masks = _files_by_stem(root, folder / "masks", "masks")
    _check_partners(images, masks, "image", "mask", folder / "masks")
    _check_partners(masks, images, "mask", "image", folder / "images")
    return [FileSample(stem, (images[stem],), masks[stem]) for stem in sorted(images)]


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of `folder`, by name, without hidden files and those of operating systems."""
    try:
        with os.scandir(folder) as found:
            kept = [e for e in found if e.name[0] != "." and e.name.lower() not in _JUNK]
    except OSError as error:
        raise DataError(f"{folder}: this folder cannot be read: {error.strerror}.") from None
    return sorted(kept, key=lambda entry: entry.name)


def _files_by_stem(root: Path, folder: Path, what: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: this folder is missing. Put the {what} there.")
    root, outside = root.resolve(), not folder.resolve().is_relative_to(root.resolve())
    files: dict[str, Path] = {}
    for entry in entries(folder):
        path = folder / entry.name
        _check_entry(path, entry)
        if outside or (entry.is_symlink() and not path.resolve().is_relative_to(root)):
            raise DataError(
                f"{path}: this link leads to {path.resolve()}, outside {root}. "
                "Put the file itself there."
            )
        stem = unicodedata.normalize("NFC", path.stem)  # macOS stores accents separately
        if stem in files:
            raise DataError(
                f"{path} and {files[stem].name} have the same name without extension: rename or "
                "remove one of them, together with its partner."
            )
        files[stem] = path
    if not files:
        raise DataError(
            f"{folder}: there are no {what} here. Put {what} there as PNG, JPEG or TIFF files."
        )
    return files


def _check_entry(path: Path, entry: os.DirEntry[str]) -> None:
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        raise DataError(f"{str(path)!a}: the name of this file is not UTF-8: rename it.") from None
    if entry.is_dir():
        raise DataError(f"{path}: this is a folder. Put all files directly into {path.parent}.")
    if not entry.is_file():
        raise DataError(f"{path}: this is not a file, or it is a broken link. Remove it.")
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{path}: {path.suffix or 'a name without extension'} is not supported. Convert it "
            f"to PNG, JPEG or TIFF ({', '.join(SUFFIXES)}), or move it elsewhere."
        )


def _check_partners(
    files: dict[str, Path], partners: Collection[str], what: str, partner: str, place: Path
) -> None:
    alone = sorted(set(files) - set(partners))
    if not alone:
        return
    hint = did_you_mean(alone[0], sorted(set(partners) - set(files)))
    raise DataError(
        f"{len(alone)} of the {len(files)} {what}s have no {partner} in {place}: "
        f"{listed([str(files[stem]) for stem in alone])}.{hint} Give the {what} and its "
        f"{partner} the same name except for the extension, or remove the {what}."
    )
