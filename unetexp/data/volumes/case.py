"""A case, and the names of NIfTI files and folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unetexp.data.files.entries import entries_of
from unetexp.errors import DataError, listed

LABEL_WORDS = (
    *("seg", "segs", "segm", "segmentation", "segmentations", "mask", "masks", "label", "labels"),
    *("gt", "groundtruth", "ground_truth", "annotation", "annotations"),
)
_WORDS = "|".join(LABEL_WORDS)
LABEL_END = re.compile(rf"(.+?)[_-]({_WORDS})", re.IGNORECASE)
CHANNEL_END = re.compile(r"(.+)_(\d{4})")  # nnU-Net's
LABEL_START = re.compile(rf"({_WORDS})[_-](.+)", re.IGNORECASE)


@dataclass(frozen=True)
class Case:
    """The files of one patient or one scan."""

    name: str
    images: tuple[Path | None, ...]  # one a channel; None: zeros stand for it
    label: Path
    patient: str = ""  # where it has several cases; "": only this one
    channels: tuple[str, ...] = ()  # what the files' names call the images

    @property
    def missing(self) -> tuple[int, ...]:
        """The channels without a file."""
        return tuple(number for number, path in enumerate(self.images) if path is None)

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
            stem = _stem(path)
            if stem in files:
                raise DataError(f"{path} and {files[stem].name} are both there: remove one.")
            files[stem] = path
    return files


def _stem(path: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def folders_in(folder: Path) -> list[Path]:
    """The folders in one, without hidden ones."""
    return [path for path in entries_of(folder) if path.is_dir() and path.name[0] not in "._"]


def is_label_word(name: str) -> bool:
    """Whether a name alone says that something is a label."""
    return name.lower() in LABEL_WORDS


def with_all_channels(cases: Sequence[Case], zeros: bool) -> list[Case]:
    """The cases, all with the same volumes as channels; with `zeros` None stands for a missing one.

    Raises DataError where volumes are missing and nothing is to stand for them.
    """
    keys = [_keys(case) for case in cases]
    if all(_alike(cases[0], keys[0], *other) for other in zip(cases, keys, strict=True)):
        return list(cases)
    every = tuple(sorted(set().union(*keys)))
    named = any(set(own) == set(every) for own in keys)  # else the names differ case by case
    if zeros and named:
        return [_filled(*each, every) for each in zip(cases, keys, strict=True)]
    full = max(cases, key=_volumes)
    unlike = [each for each in cases if not _alike(full, _keys(full), each, _keys(each))]
    lacking = min(unlike, key=_volumes)
    way = ", or have zeros stand for them: --set data.missing=zeros" if named else ""
    raise DataError(
        f"{full.name} has {len(full.images)} volumes as channels "
        f"({listed(path.name for path in full.images if path)}), but {lacking.name} "
        f"{len(lacking.images)} ({listed(path.name for path in lacking.images if path)}). Add the "
        f"missing ones, name them alike, move such cases elsewhere{way}."
    )


def _volumes(case: Case) -> int:
    return len(case.images)


def _keys(case: Case) -> tuple[str, ...]:
    """What tells the channels of a case apart: their names, nnU-Net's numbers or the files'."""
    stems = [_stem(path) for path in case.images if path is not None]
    numbered = [CHANNEL_END.fullmatch(stem) for stem in stems]
    return case.channels or tuple(
        match[2] if match else stem for match, stem in zip(numbered, stems, strict=True)
    )


def _alike(first: Case, its_keys: Sequence[str], case: Case, keys: Sequence[str]) -> bool:
    if len(case.images) != len(first.images) or case.channels != first.channels:
        return False
    return len(keys) == 1 or keys == its_keys  # one volume may be called as its case is


def _filled(case: Case, keys: Sequence[str], every: tuple[str, ...]) -> Case:
    files = dict(zip(keys, case.images, strict=True))
    named = not all(key.isdigit() for key in every)
    images = tuple(files.get(key) for key in every)
    return replace(case, images=images, channels=every if named else ())
