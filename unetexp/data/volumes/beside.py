"""Labels beside their volumes, in one folder or in one a case.

CASE.nii.gz  CASE_seg.nii.gz
CASE_t1.nii.gz  CASE_flair.nii.gz  CASE_seg.nii.gz        BraTS: each a channel
volume-0.nii  segmentation-0.nii                          LiTS
CASE/imaging.nii.gz  CASE/segmentation.nii.gz             KiTS, and others with names for all cases
PATIENT/PATIENT_frame01.nii.gz  PATIENT/PATIENT_frame01_gt.nii.gz  ACDC: a patient stays together
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from unetexp.data.volumes.case import (
    LABEL_END,
    LABEL_START,
    Case,
    by_stem,
    folders_in,
    is_label_word,
)
from unetexp.errors import DataError, listed

_DEPTH = 3  # folders below the root, such as HGG/CASE
_VISIT = re.compile(
    r"(ses|session|visit|scan|time|timepoint|day|week|month|study|t|v)[-_]?\d+"
    r"|\d{4}[-_.]?\d{2}[-_.]?\d{2}|baseline|follow[-_]?up[-_]?\d*|pre|post",
    re.IGNORECASE,
)  # folders of one patient, such as 2021-03-04


def cases_beside(root: Path) -> list[Case]:
    """The cases below `root`, none where there are no labels. Raises DataError."""
    cases = [case for folder in _folders(root, _DEPTH) for case in _in_folder(folder, root)]
    names = [case.name for case in cases]
    if len(set(names)) < len(names):
        cases = [_named_by_place(case, root) for case in cases]
        names = [case.name for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{root}: more than one case is called {listed(twice)}: rename them.")
    return cases


def many_labels(root: Path) -> str:
    """What to do where each case has a folder with a file for each structure; "" elsewhere."""
    for case in folders_in(root):
        for folder in folders_in(case):
            inside = by_stem(folder)
            if is_label_word(folder.name) and len(inside) > 1 and by_stem(case):
                volume = next(iter(by_stem(case).values())).name
                return (
                    f" {folder} holds a file for each structure ({listed(inside, 3)}), and a "
                    "voxel has one class here: write one label of them, which holds in each voxel "
                    "the number of its structure and 0 outside, as "
                    f"{case / 'segmentation.nii.gz'} beside {volume}."
                )
    return ""


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    """The folder and those below it, deeper ones only where nothing lies in them."""
    yield folder
    for inner in folders_in(folder) if depth else ():
        yield from (inner,) if by_stem(inner) else _folders(inner, depth - 1)


def _in_folder(folder: Path, root: Path) -> list[Case]:
    files = by_stem(folder)
    bare = [stem for stem in files if is_label_word(stem)]
    if bare:
        return [_case_of_folder(folder, root, files, bare)]
    labels: dict[str, str] = {}  # stem -> the case's name
    for stem in files:
        if match := LABEL_END.fullmatch(stem):
            labels[stem] = match[1]
        elif match := LABEL_START.fullmatch(stem):
            labels[stem] = match[2]
    cases = [_case(files, stem, labels) for stem in sorted(labels)]
    if len(cases) > 1 and folder != root and all(c.name.startswith(folder.name) for c in cases):
        cases = [replace(case, patient=folder.name) for case in cases]
    return cases


def _case(files: Mapping[str, Path], label: str, labels: Mapping[str, str]) -> Case:
    """The case of a label: its volume has its name, or several have what stands before it."""
    name = labels[label]
    volumes = [stem for stem in files if stem not in labels]
    if name in volumes:
        return Case(name, (files[name],), files[label])
    if LABEL_START.fullmatch(label):
        ends = [stem for stem in volumes if re.split(r"[_-]", stem, maxsplit=1)[-1] == name]
        if len(ends) == 1:
            return Case(name, (files[ends[0]],), files[label])
    else:
        found = [stem for stem in volumes if stem.startswith((f"{name}_", f"{name}-"))]
        if found:
            channels = tuple(stem[len(name) + 1 :] for stem in found)
            return Case(name, tuple(files[stem] for stem in found), files[label], "", channels)
    if len(labels) > 1 and len(volumes) == 1:
        raise DataError(
            f"{files[label].parent} holds several labels ({listed(labels)}) of one volume, "
            f"{files[volumes[0]].name}, and a voxel has one class here. Keep the one that is "
            "meant, or write one label of them, which holds in each voxel the number of its "
            "structure and 0 outside, and move the others elsewhere."
        )
    raise DataError(f"{files[label]}: this label has no volume {name}.nii.gz beside it.")


def _case_of_folder(folder: Path, root: Path, files: Mapping[str, Path], bare: list[str]) -> Case:
    """The case of a folder in which a file is called just segmentation, label or the like."""
    if len(bare) > 1:
        raise DataError(
            f"{folder} holds {' and '.join(files[stem].name for stem in bare)}, each of which may "
            "be the label. Keep the one that is meant, and move the other elsewhere, in every case."
        )
    volumes = [s for s in files if s not in bare and not LABEL_END.fullmatch(s)]
    if not volumes:
        raise DataError(f"{files[bare[0]]}: this label has no volume beside it.")
    images = tuple(files[stem] for stem in volumes)
    channels = tuple(volumes) if len(volumes) > 1 else ()
    case = Case(folder.name, images, files[bare[0]], "", channels)
    if folder != root and _VISIT.fullmatch(folder.name) and folder.parent != root:
        return replace(_named_by_place(case, root), patient=folder.parent.name)
    return case


def _named_by_place(case: Case, root: Path) -> Case:
    """The case called by its folders, so that equal names differ."""
    folders = case.label.parent.relative_to(root).parts
    own = () if folders and folders[-1] == case.name else (case.name,)
    return replace(case, name="_".join((*folders, *own)))
