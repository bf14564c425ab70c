"""A case, and the names of NIfTI files and folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unetexp.data.files.entries import entries_of
from unetexp.errors import DataError, listed

LABEL_WORDS = (
    *("seg", "segs", "segm", "segmentation", "segmentations", "mask", "masks", "label", "labels"),
    *("gt", "groundtruth", "ground_truth", "annotation", "annotations"),
)
_WORDS = "|".join(LABEL_WORDS)
LABEL_END = re.compile(rf"(.+?)[_-]({_WORDS})", re.IGNORECASE)
LABEL_START = re.compile(rf"({_WORDS})[_-](.+)", re.IGNORECASE)


@dataclass(frozen=True)
class Case:
    """The files of one patient or one scan."""

    name: str
    images: tuple[Path, ...]  # one a channel
    label: Path
    patient: str = ""  # where it has several cases; "": only this one
    channels: tuple[str, ...] = ()  # what the files' names call the images

    @property
    def group(self) -> str:
        """What stays in one split."""
        return self.patient or self.name


def is_nifti(path: Path) -> bool:
    """Whether a path is named as a NIfTI file."""
    return path.name.lower().endswith((".nii", ".nii.gz")) and path.name[0] != "."


def by_stem(folder: Path) -> dict[str, Path]:
    """The NIfTI files in a folder by their names. Raises DataError for two of one name."""
    files: dict[str, Path] = {}
    for path in entries_of(folder):
        if is_nifti(path) and path.is_file():
            stem = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
            if stem in files:
                raise DataError(f"{path} and {files[stem].name} are both there: remove one.")
            files[stem] = path
    return files


def folders_in(folder: Path) -> list[Path]:
    """The folders in one, without hidden ones."""
    return [path for path in entries_of(folder) if path.is_dir() and path.name[0] not in "._"]


def is_label_word(name: str) -> bool:
    """Whether a name alone says that something is a label."""
    return name.lower() in LABEL_WORDS


def check_channels(cases: Sequence[Case]) -> None:
    """Raise DataError unless every case has volumes as the first has."""
    first = cases[0] if cases else None
    for case in cases:
        assert first is not None
        if len(case.images) == len(first.images) and case.channels == first.channels:
            continue
        raise DataError(
            f"{first.name} has {len(first.images)} volumes as channels "
            f"({listed(path.name for path in first.images)}), but {case.name} "
            f"{len(case.images)} ({listed(path.name for path in case.images)}). Add the missing "
            "ones, name them alike, or move such cases elsewhere."
        )
