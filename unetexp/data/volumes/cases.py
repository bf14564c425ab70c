"""Which NIfTI files are the volumes of a case, and which is its label.

imagesTr/CASE.nii.gz  labelsTr/CASE.nii.gz                Medical Segmentation Decathlon
imagesTr/CASE_0000.nii.gz, CASE_0001 ...  labelsTr/CASE.nii.gz    nnU-Net: one a channel
images/CASE.nii.gz  masks/CASE.nii.gz                     or img, labels, ...; also in train/, val/
Labels beside their volumes: `beside.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from unetexp.data.collection import SPLITS
from unetexp.data.files.entries import entries_of
from unetexp.data.volumes.beside import cases_beside, many_labels
from unetexp.data.volumes.case import (
    CHANNEL_END,
    LABEL_END,
    LABEL_WORDS,
    Case,
    by_stem,
    folders_in,
    is_label_word,
    is_nifti,
    with_all_channels,
)
from unetexp.errors import DataError, did_you_mean, listed

_PAIRED_FOLDERS = (
    *(("imagesTr", "labelsTr"), ("images", "masks"), ("images", "labels")),
    *(("image", "mask"), ("image", "label")),
)
_IMAGE_FOLDERS = (
    *("imagestr", "images", "image", "imgs", "img", "volumes", "volume", "scans", "scan"),
    *("ct", "cts", "mr", "mri", "mris", "imaging"),
)
_LABEL_FOLDERS = ("labelstr", *LABEL_WORDS)
_SPLIT_FOLDERS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing", "tst"),
}
_LOOKED_AT = 20  # folders
_OFFICIAL_TEST = ("imagesTs", "labelsTs")
_NUMBER = re.compile(
    rf"(?:({'|'.join((*_IMAGE_FOLDERS, *LABEL_WORDS))})[_-]?)(\d.*)", re.IGNORECASE
)
_IMAGE_END = re.compile(r"(.+?)[_-](images?|imgs?|ct|mri?|volume|scan|imaging)", re.IGNORECASE)


def looks_like_volumes(root: Path) -> bool:
    """Whether there are NIfTI files at a usual place; reads names only."""
    near = [root, *folders_in(root)[:_LOOKED_AT]]
    if any(is_nifti(path) for place in near for path in entries_of(place)):
        return True
    deeper = [inner for place in near[1:] for inner in folders_in(place)[:_LOOKED_AT]]
    return any(_says_label(stem, place) for place in deeper for stem in by_stem(place))


def _says_label(stem: str, folder: Path) -> bool:
    alone = is_label_word(stem) or LABEL_END.fullmatch(stem) is not None
    return alone or folder.name.lower() in _LABEL_FOLDERS


def find_cases(root: Path, zeros: bool = False) -> dict[str, list[Case]]:
    """The cases of each split, or of "" where no split is given. Raises DataError.

    With `zeros` a case may lack some of the volumes that are its channels.
    """
    if not root.is_dir():
        raise DataError(f"{root} does not exist. Give the folder that holds the NIfTI volumes.")
    given = _split_folders(root)
    if "train" in given:
        return {name: with_all_channels(_cases(folder), zeros) for name, folder in given.items()}
    cases = {"": with_all_channels(_cases(root), zeros)}
    images, labels = (root / name for name in _OFFICIAL_TEST)
    if any(map(is_nifti, entries_of(labels))):
        test = with_all_channels(_paired(images, labels), zeros)
        cases = {"train": cases[""], "test": test}
    return cases


def unused(root: Path, cases: Iterable[Case]) -> list[str]:
    """The NIfTI files below `root` that belong to no case, by their places."""
    used = {path for case in cases for path in (*case.images, case.label)}
    every = (path for path in sorted(root.rglob("*")) if is_nifti(path))
    return [path.relative_to(root).as_posix() for path in every if path not in used]


def _split_folders(root: Path) -> dict[str, Path]:
    by_name = {folder.name.lower(): folder for folder in folders_in(root)}
    found = {
        split: next((by_name[name] for name in _SPLIT_FOLDERS[split] if name in by_name), None)
        for split in SPLITS
    }
    return {split: folder for split, folder in found.items() if folder is not None}


def _cases(folder: Path) -> list[Case]:
    pair = _paired_folders(folder)
    if pair:
        return _paired(*pair)
    cases = cases_beside(folder)
    if not cases:
        raise DataError(
            f"{folder}: there are no pairs of NIfTI volumes.{many_labels(folder)} It must hold the "
            "folders imagesTr and labelsTr or images and masks with files of the same names, "
            "CASE.nii.gz beside CASE_seg.nii.gz, or a folder each case with files such as "
            "imaging.nii.gz and segmentation.nii.gz."
        )
    return cases


def _paired_folders(folder: Path) -> tuple[Path, Path] | None:
    """The folder of volumes and that of labels. Raises DataError where it is not clear which."""
    for images, labels in _PAIRED_FOLDERS:
        if (folder / images).is_dir() and (folder / labels).is_dir():
            return folder / images, folder / labels
    inside = [each for each in folders_in(folder) if any(map(is_nifti, entries_of(each)))]
    volumes = [each for each in inside if each.name.lower() in _IMAGE_FOLDERS]
    masks = [each for each in inside if each.name.lower() in _LABEL_FOLDERS]
    if not volumes or not masks:
        return None
    for found, what in ((volumes, "volumes"), (masks, "labels")):
        if len(found) > 1:
            raise DataError(
                f"{folder} holds several folders of {what}, "
                f"{' and '.join(each.name for each in found)}. Keep the one that is meant, and "
                "move the others elsewhere. If they are channels, name their files CASE_0000, "
                "CASE_0001 and so on in one folder."
            )
    return volumes[0], masks[0]


def _paired(images: Path, labels: Path) -> list[Case]:
    """Cases of two folders, by name: CASE or CASE_0000 and its channels, CASE or CASE_seg."""
    scans, found = by_stem(images), by_stem(labels)
    names = {_case_of(stem, scans): path for stem, path in found.items()}
    if not any(_channels(name, scans) for name in names):
        scans, names = _by_core(scans), _by_core(found)
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
    return cases


def _case_of(stem: str, scans: dict[str, Path]) -> str:
    """The case of a label named CASE or CASE_seg."""
    match = LABEL_END.fullmatch(stem)
    return match[1] if match and not _channels(stem, scans) else stem


def _channels(name: str, scans: dict[str, Path]) -> tuple[Path, ...]:
    if name in scans:
        return (scans[name],)
    matches = [(stem, CHANNEL_END.fullmatch(stem)) for stem in sorted(scans)]
    return tuple(scans[stem] for stem, match in matches if match and match[1] == name)


def _by_core(files: dict[str, Path]) -> dict[str, Path]:
    """The files by what names such as img0001 and label0001 or x_ct and x_seg share."""
    cores: dict[str, Path] = {}
    for stem, path in files.items():
        number, end = _NUMBER.fullmatch(stem), LABEL_END.fullmatch(stem)
        end = end or _IMAGE_END.fullmatch(stem)
        cores[number[2] if number else end[1] if end else stem] = path
    return cores if len(cores) == len(files) else files
