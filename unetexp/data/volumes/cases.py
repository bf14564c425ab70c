"""Which NIfTI files are the volumes of a case, and which is its label.

imagesTr/CASE.nii.gz  labelsTr/CASE.nii.gz                Medical Segmentation Decathlon
imagesTr/CASE_0000.nii.gz, CASE_0001 ...  labelsTr/CASE.nii.gz    nnU-Net: one a channel
images/CASE.nii.gz  masks/CASE.nii.gz (or labels/)        also in train/, val/ and test/
CASE.nii.gz  CASE_seg.nii.gz                              in one folder, or in one a case
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unetexp.data.collection import SPLITS
from unetexp.data.files.entries import entries_of
from unetexp.errors import DataError, did_you_mean, listed

_PAIRED_FOLDERS = (
    *(("imagesTr", "labelsTr"), ("images", "masks"), ("images", "labels")),
    *(("image", "mask"), ("image", "label")),
)
_OFFICIAL_TEST = ("imagesTs", "labelsTs")
_LABEL_END = re.compile(r"(.+?)[_-](seg|segmentation|mask|label|labels)", re.IGNORECASE)
_CHANNEL_END = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True)
class Case:
    """The files of one patient or one scan."""

    name: str
    images: tuple[Path, ...]  # one a channel
    label: Path


def is_nifti(path: Path) -> bool:
    """Whether a path is named as a NIfTI file."""
    return path.name.lower().endswith((".nii", ".nii.gz")) and path.name[0] != "."


def looks_like_volumes(root: Path) -> bool:
    """Whether there are NIfTI files at a usual place; reads names only."""
    places = [root, *(root / name for pair in _PAIRED_FOLDERS for name in pair), root / "train"]
    places += [path for path in sorted(entries_of(root))[:20] if path.is_dir()]
    places += [root / "train" / name for pair in _PAIRED_FOLDERS for name in pair]
    return any(is_nifti(path) for place in places for path in entries_of(place))


def find_cases(root: Path) -> dict[str, list[Case]]:
    """The cases of each split, or of "" where no split is given. Raises DataError."""
    if not root.is_dir():
        raise DataError(f"{root} does not exist. Give the folder that holds the NIfTI volumes.")
    given = [name for name in SPLITS if (root / name).is_dir()]
    if "train" in given:
        return {name: _cases(root / name) for name in given}
    cases = {"": _cases(root)}
    images, labels = (root / name for name in _OFFICIAL_TEST)
    if any(map(is_nifti, entries_of(labels))):
        cases = {"train": cases[""], "test": _paired(images, labels)}
    return cases


def _cases(folder: Path) -> list[Case]:
    for images, labels in _PAIRED_FOLDERS:
        if (folder / images).is_dir() and (folder / labels).is_dir():
            return _paired(folder / images, folder / labels)
    cases = _side_by_side(folder)
    if not cases:
        raise DataError(
            f"{folder}: there are no pairs of NIfTI volumes. It must hold the folders imagesTr and "
            "labelsTr or images and masks with files of the same names, or CASE.nii.gz beside "
            "CASE_seg.nii.gz."
        )
    return cases


def _paired(images: Path, labels: Path) -> list[Case]:
    """Cases of two folders, by name: CASE or CASE_0000 and its channels, CASE or CASE_seg."""
    scans, found = _by_stem(images), _by_stem(labels)
    names = {_case_of(stem, scans): path for stem, path in found.items()}
    cases = [
        Case(name, channels, path)
        for name, path in sorted(names.items())
        if (channels := _channels(name, scans))
    ]
    alone = sorted(set(names) - {case.name for case in cases})
    if alone:
        raise DataError(
            f"{len(alone)} of the {len(names)} labels in {labels} have no volume in {images}: "
            f"{listed(alone)}.{did_you_mean(alone[0], scans)} Give both the same name (the volume "
            "also CASE_0000.nii.gz, CASE_0001.nii.gz as channels)."
        )
    used = {path for case in cases for path in case.images}
    without = sorted(stem for stem, path in scans.items() if path not in used)
    if without:
        raise DataError(
            f"{len(without)} of the {len(scans)} volumes in {images} have no label in {labels}: "
            f"{listed(without)}. Label them, or move them elsewhere."
        )
    if not cases:
        raise DataError(f"{labels}: there are no NIfTI files (.nii, .nii.gz) here.")
    _check_channels(cases)
    return cases


def _case_of(stem: str, scans: dict[str, Path]) -> str:
    """The case of a label named CASE or CASE_seg."""
    match = _LABEL_END.fullmatch(stem)
    return match[1] if match and not _channels(stem, scans) else stem


def _channels(name: str, scans: dict[str, Path]) -> tuple[Path, ...]:
    if name in scans:
        return (scans[name],)
    matches = [(stem, _CHANNEL_END.fullmatch(stem)) for stem in sorted(scans)]
    return tuple(scans[stem] for stem, match in matches if match and match[1] == name)


def _side_by_side(folder: Path) -> list[Case]:
    """Cases of labels named CASE_seg beside their volumes, here and one folder below."""
    cases = []
    for place in (folder, *(path for path in entries_of(folder) if path.is_dir())):
        files = _by_stem(place)
        ends = {stem: match[1] for stem in files if (match := _LABEL_END.fullmatch(stem))}
        for stem, name in sorted(ends.items()):
            exact = [files[name]] if name in files else []
            channels = [
                p
                for s, p in files.items()
                if s not in ends and s.startswith((f"{name}_", f"{name}-"))
            ]
            scans = tuple(exact or channels)
            if not scans:
                raise DataError(f"{files[stem]}: this label has no volume {name}.nii.gz beside it.")
            cases.append(Case(name, scans, files[stem]))
    twice = sorted({c.name for c in cases if [d.name for d in cases].count(c.name) > 1})
    if twice:
        raise DataError(f"{folder}: more than one case is called {listed(twice)}: rename them.")
    _check_channels(cases)
    return cases


def _check_channels(cases: Sequence[Case]) -> None:
    """Every case has as many volumes as the first."""
    other = [case for case in cases if len(case.images) != len(cases[0].images)]
    if other:
        raise DataError(
            f"{cases[0].name} has {len(cases[0].images)} volumes as channels, but {other[0].name} "
            f"{len(other[0].images)} ({listed(path.name for path in other[0].images)}), as do "
            f"{len(other) - 1} more. Add the missing ones, or move these cases elsewhere."
        )


def _by_stem(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in entries_of(folder):
        if is_nifti(path) and path.is_file():
            stem = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
            if stem in files:
                raise DataError(f"{path} and {files[stem].name} are both there: remove one.")
            files[stem] = path
    return files
