"""The names that people give to folders and files of images, masks and splits."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

IMAGE_FOLDERS = frozenset(
    (
        *("images", "image", "imgs", "img", "img_dir", "image_dir", "images_dir"),
        *("jpegimages", "pngimages", "input", "inputs", "photos", "pictures", "original"),
        *("originals", "rgb"),
    )
)
MASK_FOLDERS = frozenset(
    (
        *("masks", "mask", "mask_dir", "masks_dir", "labels", "label", "label_dir"),
        *("labels_dir", "annotations", "annotation", "annots", "annot", "anns", "ann"),
        *("ann_dir", "gt", "gts", "groundtruth", "ground_truth", "groundtruths"),
        *(
            "segmentationclass",
            "segmentationclassraw",
            "segmentationclasspng",
            "segmentation",
            "segmentations",
        ),
        *("seg", "segs", "target", "targets", "trimaps"),
    )
)
_SPLITS = {
    "train": ("train", "training", "trn", "tr"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst", "ts"),
}
_OF = {name: split for split, names in _SPLITS.items() for name in names}
_MASKS_OF = re.compile(r"(?P<split>[a-z]+?)[_ -]?(masks?|labels?|annots?|annotations?|gt)")


def normal(name: str) -> str:
    """A folder's name without its case, with one kind of separator."""
    return re.sub(r"[ -]", "_", name.lower())


def split_of(name: str) -> str | None:
    """The split that a folder's name stands for, such as val for Validation; None: none."""
    return _OF.get(normal(name))


def masks_of_split(name: str) -> str | None:
    """The split whose masks a folder's name stands for, such as train for train_masks."""
    match = _MASKS_OF.fullmatch(normal(name))
    return _OF.get(match["split"]) if match else None


def split_and_key(parts: Sequence[str]) -> tuple[str | None, str]:
    """The split among a file's folders, and what is left of its place as one name.

    The last of `parts` is the file's name without extension.
    """
    for place, part in enumerate(parts[:-1]):
        split = split_of(part)
        if split is not None:
            return split, key_of([*parts[:place], *parts[place + 1 :]])
    return None, key_of(parts)


def key_of(parts: Sequence[str]) -> str:
    """One name of a file's place; macOS stores accents separately."""
    return unicodedata.normalize("NFC", "/".join(part for part in parts if part))
