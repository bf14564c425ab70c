"""The image files below a folder, or those that a pattern names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from unetexp.data.reading.formats.detection import SUFFIXES
from unetexp.errors import DataError, listed

_JUNK = {"thumbs.db", "desktop.ini", "__macosx", "__pycache__"}
_NO_IMAGES = frozenset(
    (
        *(".txt", ".md", ".rst", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".xls"),
        *(".xlsx", ".yaml", ".yml", ".html", ".htm", ".pdf", ".doc", ".docx", ".log"),
        *(".db", ".ini", ".cfg", ".toml", ".py", ".ipynb", ".sh", ".m", ".mat"),
        *(".parquet", ".lnk", ".url", ".bib", ".sha256", ".md5", ".zip", ".tgz", ".gz"),
        *(".tar", ".7z", ".rar", ".cache", ".lock"),
    )
)
_MEDICAL = (".dcm", ".dicom", ".ima", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz")


@dataclass
class Scan:
    """One look at a folder: where links may lead, and which files were left out."""

    root: Path
    follow_links: bool = False
    left_out: list[Path] = field(default_factory=list)

    def files(self, folder: Path) -> Iterator[tuple[tuple[str, ...], Path]]:
        """Each image file below `folder`, with its folders and its stem, by name."""
        yield from self._below(folder, (), frozenset())

    def named(self, pattern: str) -> list[tuple[tuple[str, ...], Path]]:
        """Each image file that `pattern` names: a folder below the root, or a glob.

        With a glob, only what its wildcards stand for counts as the file's name.
        """
        place = self.root / pattern
        if not _is_glob(pattern):
            if not place.is_dir():
                what = "is a file" if place.is_file() else "does not exist"
                raise DataError(f"{place} {what}. Give a folder below {self.root}, or a glob.")
            return list(self.files(place))
        matcher = _expression(pattern)
        found = []
        for path in sorted(self.root.glob(pattern)):
            match = matcher.fullmatch(path.relative_to(self.root).as_posix())
            groups = match.groups("") if match else ()
            parts = tuple(part for group in groups for part in group.split("/"))
            if path.is_dir():
                found += [((*parts, *inner), file) for inner, file in self.files(path)]
            elif self._is_image(path):
                self._check_link(path)
                *folders, name = parts or ("",)
                stem = name.removesuffix(path.suffix) if path.suffix else name
                found.append(((*folders, stem), path))
        if not found:
            raise DataError(f"{self.root}: the pattern {pattern!r} names no image file here.")
        return found

    def loose(self, folder: Path) -> list[tuple[tuple[str, ...], Path]]:
        """The image files directly in `folder`."""
        paths = [folder / entry.name for entry in entries(folder) if not entry.is_dir()]
        images = [path for path in paths if path.suffix.lower() in SUFFIXES]
        for path in images:
            self._check_link(path)
        return [((path.stem,), path) for path in images]

    def folders(self, folder: Path) -> list[Path]:
        """The folders directly in `folder`."""
        return [folder / entry.name for entry in entries(folder) if entry.is_dir()]

    def _below(
        self, folder: Path, parts: tuple[str, ...], above: frozenset[Path]
    ) -> Iterator[tuple[tuple[str, ...], Path]]:
        self._check_link(folder)
        here = folder.resolve()
        if here in above:
            raise DataError(f"{folder}: this link leads to a folder above it. Remove it.")
        for entry in entries(folder):
            path = folder / entry.name
            _check_entry(path, entry)
            if entry.is_dir():
                yield from self._below(path, (*parts, entry.name), above | {here})
            elif self._is_image(path):
                self._check_link(path)
                yield (*parts, path.stem), path

    def _is_image(self, path: Path) -> bool:
        suffix = path.suffix.lower()
        if suffix in SUFFIXES:
            return True
        if suffix in _NO_IMAGES or path.name.lower() in ("readme", "license", "makefile"):
            self.left_out.append(path)
            return False
        if suffix in _MEDICAL:
            raise DataError(
                f"{path}: {path.suffix} is not read. Convert scans and their labels to NIfTI "
                "volumes (dcm2niix does that with DICOM, SimpleITK with NRRD and MetaImage), which "
                "are read as CASE.nii.gz with CASE_seg.nii.gz, or single pictures to PNG or TIFF."
            )
        raise DataError(
            f"{path}: {path.suffix or 'a name without extension'} is not supported. Convert it "
            "to an image format such as PNG or TIFF (masks never to JPEG, which changes labels), "
            "or move it elsewhere."
        )

    def _check_link(self, path: Path) -> None:
        target = path.resolve()
        if not self.follow_links and not target.is_relative_to(self.root.resolve()):
            raise DataError(
                f"{path}: this link leads to {target}, outside {self.root}. To read it there: "
                "--set data.follow_links=true. Or put the file itself there."
            )

    def notes(self) -> list[str]:
        """What was left out."""
        names = sorted({path.name for path in self.left_out})
        if not names:
            return []
        count = len(set(self.left_out))
        return [f"{count} files that are no images are left out: {listed(names)}."]


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of `folder`, by name, without hidden files and those of operating systems."""
    try:
        with os.scandir(folder) as found:
            kept = [e for e in found if e.name[0] != "." and e.name.lower() not in _JUNK]
    except OSError as error:
        raise DataError(f"{folder}: this folder cannot be read: {error.strerror}.") from None
    return sorted(kept, key=lambda entry: entry.name)


def _check_entry(path: Path, entry: os.DirEntry[str]) -> None:
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        raise DataError(f"{str(path)!a}: the name of this file is not UTF-8: rename it.") from None
    if not entry.is_dir() and not entry.is_file():
        raise DataError(f"{path}: this is not a file, or it is a broken link. Remove it.")


def _is_glob(pattern: str) -> bool:
    return any(char in pattern for char in "*?[")


def _expression(pattern: str) -> re.Pattern[str]:
    """A glob as an expression whose groups are what the wildcards stand for."""
    whole, place = "", 0
    while place < len(pattern):
        if pattern.startswith("**/", place):
            whole, place = whole + "(?:(.*)/)?", place + 3
        elif pattern.startswith("**", place):
            whole, place = whole + "(.*)", place + 2
        elif pattern[place] == "*":
            whole, place = whole + "([^/]*)", place + 1
        elif pattern[place] == "?":
            whole, place = whole + "([^/])", place + 1
        elif pattern[place] == "[" and "]" in pattern[place:]:
            end = pattern.index("]", place)
            inside = pattern[place + 1 : end].replace("!", "^", 1)
            whole, place = f"{whole}([{inside}])", end + 1
        else:
            whole, place = whole + re.escape(pattern[place]), place + 1
    return re.compile(whole)
