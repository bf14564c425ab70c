"""Image and mask files below a folder, paired as far as possible where the reader refuses it."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from unetexp.data.files.file_sample import FileSample
from unetexp.data.reading.formats.detection import SUFFIXES

_MASK_FOLDERS = {
    "masks", "mask", "labels", "label", "annotations", "annotation", "ann", "ann_dir", "gt",
    "ground_truth", "groundtruth", "segmentations", "segmentation", "seg", "labelstr", "targets",
}  # fmt: skip
_IMAGE_FOLDERS = {"images", "image", "imgs", "img", "img_dir", "imagestr", "jpegimages", "inputs"}
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val",
           "validation": "val", "test": "test", "testing": "test"}  # fmt: skip
_MASK_ENDING = re.compile(
    r"[-_. ]?(mask|masks|seg|segmentation|label|labels|gt|annotation)$", re.IGNORECASE
)


@dataclass(frozen=True)
class LoosePairs:
    """What was found."""

    splits: dict[str, list[FileSample]]  # "" without a split
    images: tuple[str, ...]  # without a mask
    masks: tuple[str, ...]  # without an image
    ambiguous: tuple[str, ...]  # of one name with another


def loose_pairs(root: Path) -> LoosePairs:
    """The pairs below `root`: masks are known by their folder's name or the end of their own."""
    images: dict[tuple[str, str], list[Path]] = defaultdict(list)
    masks: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        if path.suffix.lower() not in SUFFIXES or any(p.startswith(".") for p in inside.parts):
            continue
        is_mask, key = _key(inside)
        (masks if is_mask else images)[key].append(path)
    splits: dict[str, list[FileSample]] = defaultdict(list)
    for key in sorted(images.keys() & masks.keys()):
        name = key[1]
        splits[_split_of(key[0])].append(FileSample(name, (images[key][0],), masks[key][0]))
    several = [p for found in (images, masks) for paths in found.values() for p in paths[1:]]
    return LoosePairs(
        dict(splits),
        tuple(str(path) for key in images.keys() - masks.keys() for path in images[key]),
        tuple(str(path) for key in masks.keys() - images.keys() for path in masks[key]),
        tuple(map(str, several)),
    )


def _key(inside: Path) -> tuple[bool, tuple[str, str]]:
    """Whether it is a mask, and what it shares with its partner: the folder and the name."""
    folders = [part.lower() for part in inside.parts[:-1]]
    in_masks = any(part in _MASK_FOLDERS for part in folders)
    ending = _MASK_ENDING.search(inside.stem)
    is_mask = in_masks or (ending is not None and not any(p in _IMAGE_FOLDERS for p in folders))
    place = "/".join(p for p in folders if p not in _MASK_FOLDERS | _IMAGE_FOLDERS)
    stem = inside.stem[: ending.start()] if ending and is_mask else inside.stem
    return is_mask, (place, stem)


def _split_of(place: str) -> str:
    return next((_SPLITS[part] for part in place.split("/") if part in _SPLITS), "")
