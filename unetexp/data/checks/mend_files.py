"""Copying the files of samples, images upright and grey ones as grey."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from unetexp.data.checks.examine import orientation_of
from unetexp.data.checks.facts import SampleFacts
from unetexp.data.reading.input_form import Exif
from unetexp.errors import ConfigError, listed


def folders_of_files(
    root: Path, samples: Sequence[SampleFacts], dropped: Mapping[int, str]
) -> tuple[str, ...]:
    """The folder of each image file of a sample in the copy.

    Raises ConfigError, with what to do by hand, where files cannot be copied one by one.
    """
    hand = _by_hand([samples[number] for number in dropped])
    if any(sample.part for sample in samples):
        if any(sample.mask.suffix.lower() == ".json" for sample in samples):
            raise ConfigError(
                "--fix: the masks of this set lie in one annotation file, which is not rewritten. "
                f"{hand}"
            )
        raise ConfigError(
            f"--fix: several samples lie in one file here. Write each page as a file of its own, "
            f"or mend it by hand. {hand}"
        )
    counts = {len(sample.images) for sample in samples}
    if counts == {1}:
        return ("images",)
    if len(counts) > 1:
        raise ConfigError(
            f"--fix: some samples lack a file of the {max(counts)} that the others have, and a "
            f"copy would not say which. Add these files first. {hand}"
        )
    return _names(root, samples, counts.pop())


def _by_hand(samples: Sequence[SampleFacts]) -> str:
    if not samples:
        return "Mend it by hand, as the findings say; no sample has to be left out."
    files = [f"{s.fault_file or s.images[0]}{f' ({s.part})' if s.part else ''}" for s in samples]
    return f"By hand: leave out {listed(files, 12)}, and see the findings."


def _names(root: Path, samples: Sequence[SampleFacts], count: int) -> tuple[str, ...]:
    """The folders below `root` that the kinds of files lie in, or numbers."""
    found = []
    for kind in range(count):
        paths = [sample.images[kind] for sample in samples]
        below = {path.relative_to(root).parts[0] for path in paths if path.is_relative_to(root)}
        inside = all(path.is_relative_to(root) and path.parent != root for path in paths)
        found.append(below.pop() if inside and len(below) == 1 else "")
    plain = len(set(found)) == count and all(name.isidentifier() for name in found)
    return tuple(found) if plain else tuple(f"file_{kind + 1}" for kind in range(count))


def setting_of(folders: Sequence[str]) -> str:
    """The `--set` that reads several files a sample from these folders."""
    return f"--set 'data.images={{{', '.join(f'{name}: {name}' for name in folders)}}}'"


def copy_file(source: Path, folder: Path, stem: str) -> None:
    """Copy a file as it is into `folder`, called `stem`."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, folder / f"{stem}{source.suffix}")


def copy_mask(source: Path, folder: Path, stem: str, image: Path, exif: Exif) -> None:
    """Copy a mask so that it lies on its image's copy; by itself it is copied as it is."""
    turned = orientation_of(image) if exif == "both" else 1
    tagged = exif != "image" and orientation_of(source) != 1
    if turned == 1 and not tagged:
        copy_file(source, folder, stem)
        return
    with Image.open(source) as opened:
        opened.getexif()[ExifTags.Base.Orientation] = turned
        _save(ImageOps.exif_transpose(opened), folder, stem)


def copy_image(source: Path, folder: Path, stem: str, exif: Exif, *, grey: bool) -> list[str]:
    """Copy an image as it is read, without a tag, and with `grey` as one channel.

    Returns what was changed on the way.
    """
    orientation = orientation_of(source)
    if orientation == 1 and not grey:
        copy_file(source, folder, stem)
        return []
    changes: list[str] = []
    with Image.open(source) as opened:
        picture: Image.Image = opened
        if orientation != 1 and exif == "none":
            changes.append("the image is stored as it lay, without its EXIF tag")
        elif orientation != 1:
            picture = ImageOps.exif_transpose(opened)
            changes.append("the image is stored upright, without its EXIF tag")
        if grey and picture.mode in ("RGB", "RGBA"):
            picture = Image.fromarray(np.ascontiguousarray(np.asarray(picture)[..., 0]))
            changes.append("the image is stored as grey instead of RGB")
        if not changes:
            copy_file(source, folder, stem)
        else:
            _save(picture, folder, stem)
    return changes


def _save(picture: Image.Image, folder: Path, stem: str) -> None:
    """Always lossless, and without the tags of the original."""
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / f"{stem}.png", exif=Image.Exif())
