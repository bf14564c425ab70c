"""A repaired copy of a data set: what is safe to repair, and nothing in the original.

The copy has the plain layout: <split>/images and <split>/masks, or images and masks where the set
has no split of its own.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from unetexp.atomic_folder import sync
from unetexp.data.checks.checked import Checked
from unetexp.data.checks.facts import SampleFacts
from unetexp.data.splits.fold_names import is_fold
from unetexp.errors import ConfigError, DataError

_ORDER = {"train": 0, "val": 1, "test": 2}
_LOSSY = {".jpg", ".jpeg"}


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
    if any(s.part or len(s.images) != 1 for s in checked.samples):
        raise ConfigError(
            "--fix: only sets of one image file and one mask file for each pair are repaired; this "
            "one has slices or several files. Mend it as the findings say."
        )
    dropped = _dropped(checked)
    all_grey = all(s.pixels is None or s.pixels.grey_as_colour for s in checked.samples)
    done: Counter[str] = Counter()
    kept = 0
    try:
        for number, sample in enumerate(checked.samples):
            if number in dropped:
                done[dropped[number]] += 1
                continue
            kept += 1
            folder = place / ("" if is_fold(sample.split) else sample.split)
            done.update(_copied(sample, folder, all_grey))
        names = checked.root / "classes.txt"
        if kept and names.is_file():
            shutil.copyfile(names, place / names.name)
        if kept:
            sync(place)
    except OSError as error:
        raise DataError(f"--fix {place}: the copy cannot be written: {error}") from None
    told = [f"{count} pairs: {what}" for what, count in done.items()]
    return [f"{kept} of {len(checked.samples)} pairs were copied", *told]


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


def _copied(sample: SampleFacts, folder: Path, all_grey: bool) -> list[str]:
    """Copy a pair into `folder`; what was changed on the way."""
    source = sample.images[0]
    stem = sample.name.replace("/", "_")
    images, masks = folder / "images", folder / "masks"
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(sample.mask, masks / f"{stem}{sample.mask.suffix}")
    changes: list[str] = []
    if sample.orientation == 1 and not all_grey:
        shutil.copyfile(source, images / f"{stem}{source.suffix}")
        return changes
    with Image.open(source) as opened:
        picture: Image.Image = opened
        if sample.orientation != 1:
            picture = ImageOps.exif_transpose(opened)
            changes.append("the image is stored upright, without its EXIF tag")
        if all_grey and picture.mode in ("RGB", "RGBA"):
            picture = Image.fromarray(np.ascontiguousarray(np.asarray(picture)[..., 0]))
            changes.append("the image is stored as grey instead of RGB")
        if not changes:
            shutil.copyfile(source, images / f"{stem}{source.suffix}")
        else:  # always lossless
            picture.save(images / f"{stem}.png")
    return changes
