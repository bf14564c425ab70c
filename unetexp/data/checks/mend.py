"""A repaired copy of a data set: what is safe to repair, and nothing in the original.

The copy has the plain layout: <split>/images and <split>/masks, or images and masks where the set
has no split of its own. Where a sample has several image files, each kind has a folder, with the
splits in it. Volumes stay where they lie.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from itertools import chain, count
from pathlib import Path

from unetexp.atomic_folder import sync
from unetexp.data.checks.checked import ON_STORED_FRAME, Checked
from unetexp.data.checks.mend_files import copy_image, copy_mask, folders_of_files, setting_of
from unetexp.data.checks.mend_volumes import copy_volumes
from unetexp.data.label_values.class_names import NAME_FILES
from unetexp.data.splits.fold_names import is_fold
from unetexp.data.volumes.case import is_nifti
from unetexp.errors import ConfigError, DataError

_ORDER = {"train": 0, "val": 1, "test": 2}


def require_new_folder(place: Path, source: Path) -> None:
    """ConfigError unless the copy can go there: new or empty, and not inside of the source."""
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ConfigError(f"--fix {place}: something is there. Give a folder that is new or empty.")
    if source.exists() and place.resolve().is_relative_to(source.resolve()):
        raise ConfigError(
            f"--fix {place}: this lies inside of {source}, whose files are left as they are. Give "
            "a folder elsewhere."
        )


def mend_into(checked: Checked, place: Path) -> list[str]:
    """Write the repaired copy; what was done, one sentence each. Raises ConfigError, DataError."""
    if checked.root is None:
        raise ConfigError("--fix: this source has no files of its own to repair.")
    _require_one_frame(checked)
    dropped = _dropped(checked)
    try:
        if all(is_nifti(sample.mask) for sample in checked.samples):
            told = copy_volumes(checked.root, checked.samples, dropped, place)
        else:
            told = _copy_samples(checked, dropped, place)
        if place.is_dir():
            sync(place)
    except OSError as error:
        raise DataError(f"--fix {place}: the copy cannot be written: {error}") from None
    return told


def _require_one_frame(checked: Checked) -> None:
    """ConfigError where turned images would be copied beside masks of the frame before."""
    for finding in checked.findings:
        if finding.code == ON_STORED_FRAME:
            raise ConfigError(
                f"--fix: {finding.title} A copy would hold them turned apart for good. Add --set "
                "data.exif=both (the copy has images and masks upright) or --set data.exif=none "
                "(both as stored)."
            )


def _copy_samples(checked: Checked, dropped: Mapping[int, str], place: Path) -> list[str]:
    """Copy what is not dropped, each sample's files into folders of their own."""
    assert checked.root is not None
    folders = folders_of_files(checked.root, checked.samples, dropped)
    single = len(folders) == 1
    all_grey = single and all(s.pixels is None or s.pixels.grey_as_colour for s in checked.samples)
    stems = _stems(checked)
    done: Counter[str] = Counter()
    kept = 0
    for number, sample in enumerate(checked.samples):
        if number in dropped:
            done[dropped[number]] += 1
            continue
        kept += 1
        split = "" if is_fold(sample.split) else sample.split
        stem = stems[number]
        masks = place / split / "masks" if single else place / "masks" / split
        copy_mask(sample.mask, masks, stem, sample.images[0], checked.exif)
        for folder, image in zip(folders, sample.images, strict=True):
            inside = place / split / folder if single else place / folder / split
            done.update(copy_image(image, inside, stem, checked.exif, grey=all_grey))
    for name in NAME_FILES if kept else ():
        if (checked.root / name).is_file():
            shutil.copyfile(checked.root / name, place / name)
    told = [f"{pairs} pairs: {what}" for what, pairs in done.items()]
    if not single:
        told.append(f"its images are read with {setting_of(folders)}")
    return [f"{kept} of {len(checked.samples)} pairs were copied", *told]


def _stems(checked: Checked) -> list[str]:
    """What each sample's files are called: its name with _ for /, numbered where that is taken."""
    taken: set[tuple[str, str]] = set()
    stems = []
    for sample in checked.samples:
        plain = sample.name.replace("/", "_")
        numbered = (f"{plain}_{number}" for number in count(2))
        stem = next(one for one in chain([plain], numbered) if (sample.split, one) not in taken)
        taken.add((sample.split, stem))
        stems.append(stem)
    return stems


def _dropped(checked: Checked) -> Mapping[int, str]:
    """Why a sample is left out, by its number."""
    dropped: dict[int, str] = {}
    first: dict[bytes, int] = {}
    order = sorted(
        range(len(checked.samples)),
        key=lambda i: (_ORDER.get(checked.samples[i].split, 3), i),
    )
    conflicting = _conflicting(checked)
    for number in order:
        sample = checked.samples[number]
        pixels = sample.pixels
        if pixels is None:
            dropped[number] = f"left out, because a file is not readable ({sample.fault})"
        elif not pixels.sizes_agree:
            dropped[number] = "left out, because image and mask differ in size"
        elif pixels.constant:
            dropped[number] = "left out, because the image is constant"
        elif pixels.image_digest in conflicting:
            continue  # which mask is right is for a person to say
        elif pixels.image_digest in first:
            side = checked.samples[first[pixels.image_digest]].split or "the set"
            dropped[number] = (
                f"left out of {sample.split or 'the set'}, because the same image is in {side}"
            )
        else:
            first[pixels.image_digest] = number
    return dropped


def _conflicting(checked: Checked) -> set[bytes]:
    masks: dict[bytes, set[bytes]] = {}
    for sample in checked.samples:
        if sample.pixels is not None:
            masks.setdefault(sample.pixels.image_digest, set()).add(sample.pixels.mask_digest)
    return {digest for digest, found in masks.items() if len(found) > 1}
