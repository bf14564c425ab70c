"""What to tell somebody whose folder is no layout: what is there, and the settings that read it.

Every setting that is printed can be pasted.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from unetexp.data.formats.tables import SUFFIXES as TABLES
from unetexp.data.formats.tables import read_table
from unetexp.data.layouts.layout import setting
from unetexp.data.layouts.names import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    masks_of_split,
    normal,
    split_of,
)
from unetexp.data.layouts.scanning import entries
from unetexp.data.reading.formats.detection import SUFFIXES
from unetexp.errors import DataError, listed

HOW = (
    "Say where they lie: --set data.images=FOLDER --set data.masks=FOLDER, each below it, or a "
    "glob such as '*/images'."
)


def nothing(root: Path) -> DataError:
    """The error for a folder without any layout."""
    found = [entry.name for entry in entries(root)]
    return DataError(
        f"{root} holds {listed(found, 10) or 'nothing'}. It must hold images with masks: folders "
        "such as images and masks, or train and val with both in each, or images beside masks "
        "named like 0.png and 0_mask.png. "
        f"{_of_modalities(root) or _of_cases(root) or _of_table(root) or _of_two(root) or HOW}"
    )


def half(root: Path, images: Path) -> DataError:
    """The error for a folder of images without masks."""
    others = [f.name for f in map(root.joinpath, _names(root)) if f.is_dir() and f != images]
    others = [name for name in others if _images_in(root / name)]
    begun = [
        name for name in others if any(normal(name).startswith(known) for known in MASK_FOLDERS)
    ]
    near = begun or difflib.get_close_matches("masks", others, n=1, cutoff=0.4) or others[:1]
    rename = f"If {near[0]} holds them: {setting('masks', near[0])}. " if near else ""
    return DataError(
        f"{root} holds {images.name} but not masks, and no image in {images.name} has a mask "
        f"beside it. {rename}Else add {root / 'masks'}."
    )


def empty(folder: Path, what: str) -> DataError:
    """The error for a folder without images."""
    lossless = ", never as JPEG, which changes labels" if what == "masks" else ""
    return DataError(
        f"{folder}: there are no {what} here. Put {what} there as image files, such as "
        f"PNG{lossless}."
    )


def train_folders(root: Path, image: Path, mask: Path) -> list[str | None]:
    """The folders below `root` of the images and masks of train, of one pair's files."""
    images, masks = _train_folder(root, image), _train_folder(root, mask)
    return [images, masks if masks != images else None]


def _train_folder(root: Path, file: Path) -> str | None:
    if not file.is_relative_to(root):
        return None
    parts = file.relative_to(root).parts[:-1]
    for place, part in enumerate(parts):
        if "train" in (split_of(part), masks_of_split(part)):
            inner = parts[place + 1 : place + 2]
            named = inner and normal(inner[0]) in IMAGE_FOLDERS | MASK_FOLDERS
            return "/".join(parts[: place + 1] + (inner if named else ()))
    return None


def _of_modalities(root: Path) -> str:
    """The settings for a folder of masks beside folders of images with other names."""
    folders = [root / entry.name for entry in entries(root) if entry.is_dir()]
    masks = [folder.name for folder in folders if normal(folder.name) in MASK_FOLDERS]
    others = [f.name for f in folders if f.name not in masks and _images_in(f)]
    if len(masks) != 1 or not others:
        return ""
    one = setting("images", others[0])
    if len(others) == 1:
        return f"If {others[0]} holds the images: {one}."
    every = setting("images", f"{{{', '.join(f'{name}: {name}' for name in others)}}}")
    return (
        f"If each image is a file of {' and of '.join(others)}, which are its channels: {every}. "
        f"If {others[0]} alone holds the images: {one}."
    )


def _of_two(root: Path) -> str:
    """The settings for two folders of images, one of which must hold the masks."""
    folders = [f for f in map(root.joinpath, _names(root)) if f.is_dir() and _images_in(f)]
    if len(folders) != 2:
        return ""
    ways = [
        f"if {masks.name} holds the masks: {setting('images', images.name)} "
        f"{setting('masks', masks.name)}"
        for images, masks in (folders, folders[::-1])
    ]
    return f"{ways[0][0].upper()}{ways[0][1:]}; {ways[1]}."


def _names(root: Path) -> list[str]:
    return [entry.name for entry in entries(root)]


def _of_cases(root: Path) -> str:
    """The settings for a folder each case, in which files, or folders, have the same names."""
    cases = [root / entry.name for entry in entries(root) if entry.is_dir()]
    inside = [{entry.name for entry in entries(case)} for case in cases]
    common = sorted(set.intersection(*inside)) if len(inside) > 1 else []
    masks = [name for name in common if normal(name.partition(".")[0]) in MASK_FOLDERS]
    images = [
        name
        for name in common
        if name not in masks and Path(name).suffix.lower() in (*SUFFIXES, "")
    ]
    if len(masks) != 1 or len(images) != 1:
        return ""
    if any(_many_masks(case / images[0], case / masks[0]) for case in cases):
        return (
            f"The folders {masks[0]} hold several files an image, one an object it seems: write "
            "one mask an image from them, the largest value of all files in each pixel."
        )
    return (
        f"If {images[0]} is the image in each of its folders and {masks[0]} the mask: "
        f"{setting('images', f'*/{images[0]}')} {setting('masks', f'*/{masks[0]}')}."
    )


def _many_masks(images: Path, masks: Path) -> bool:
    """Whether there are more masks than images in the two folders of a case."""
    return images.is_dir() and masks.is_dir() and len(entries(masks)) > len(entries(images))


def _of_table(root: Path) -> str:
    """How to name the columns of a table that lies there."""
    tables = [root / e.name for e in entries(root) if Path(e.name).suffix.lower() in TABLES]
    if len(tables) != 1:
        return ""
    try:
        columns = read_table(tables[0]).columns
    except DataError:
        return ""
    if len(columns) < 2:
        return ""
    return (
        f"{tables[0].name} has the columns {listed(columns)}. If it names images and masks, give "
        f"it in place of the folder, --data '{tables[0]}', and say which columns do, such as "
        f"{setting('image_column', columns[0])} {setting('mask_column', columns[1])}."
    )


def _images_in(folder: Path) -> bool:
    return any(Path(entry.name).suffix.lower() in SUFFIXES for entry in entries(folder))
