"""Pascal VOC 2012, or a data set in its form, with the official lists.

Everingham et al., The Pascal Visual Object Classes Challenge, IJCV 2015,
doi:10.1007/s11263-014-0733-5. Masks are palette PNGs with 21 classes; 255, the outline of objects,
is void. The official test masks are not public.

    VOCdevkit/VOC2012/ImageSets/Segmentation/{train,val}.txt
    VOCdevkit/VOC2012/JPEGImages/NAME.jpg    VOCdevkit/VOC2012/SegmentationClass/NAME.png
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field
from torchvision.datasets import VOCSegmentation

from unetexp.data.collection import SPLITS, Progress
from unetexp.data.files.file_sample import FileSample, Listing
from unetexp.data.files.given_splits import given_splits
from unetexp.data.formats.downloads import DownloadFailedError, download, download_folder
from unetexp.data.sources.file_source import FileSource, absolute
from unetexp.errors import DataError, listed

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
# where torchvision downloads from
SITE = "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
PATIENCE_S = 10.0

_KIT = "VOCdevkit"
_LISTS = Path("ImageSets/Segmentation")
_MASKS = "SegmentationClass"


class Voc2012(FileSource):
    """1,464 photographs for training and 1,449 for validation, in 21 classes; downloads 2 GB."""

    first_fields: ClassVar[tuple[str, ...]] = ("kind", "root")

    kind: Literal["voc2012"] = "voc2012"
    root: Annotated[str, Field(min_length=1), AfterValidator(absolute)] | None = Field(
        None,
        description="the folder VOC2012, or one that holds it or VOCdevkit; null: downloaded into "
        "the cache folder",
    )

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """Whether `root` is or holds a VOC folder with lists and class masks."""
        return _voc_folder(root) is not None

    def is_here(self) -> bool:
        """Whether it needs no download."""
        return bool(self.root) or (download_folder(self.root) / _KIT).is_dir()

    def listing(self, on_progress: Progress | None = None) -> Listing:
        """The pairs of the official lists, downloaded if `root` is null and they are not there."""
        parent = download_folder(self.root)
        if not self.root and not (parent / _KIT).is_dir():
            _download(parent)
        root = _voc_folder(parent)
        if root is None:
            raise DataError(
                f"{parent}: there is no VOC data set: no folder here holds {_LISTS} and {_MASKS}. "
                f"Unpack {SITE} here, or give the folder VOCdevkit/VOC2012."
            )
        listed_splits = {name: root / _LISTS / f"{name}.txt" for name in SPLITS}
        splits = {
            name: _listed_pairs(root, path)
            for name, path in listed_splits.items()
            if path.is_file() and (name != "test" or _has_masks(root, path))
        }
        if "train" not in splits:
            raise DataError(
                f"{listed_splits['train']}: this list is missing. It holds the name of one "
                "training image a line."
            )
        found = given_splits(
            root,
            splits,
            None if self.label_map else CLASSES,
            test_fraction=self.test_fraction,
            method="official lists",
        )
        return replace(found, indexed=True)


def _voc_folder(root: Path) -> Path | None:
    """The folder of lists and masks at `root` or a little below."""
    for place in (".", "VOC2012", f"{_KIT}/VOC2012", "VOC2012_train_val/VOC2012_train_val"):
        if (root / place / _LISTS).is_dir() and (root / place / _MASKS).is_dir():
            return root / place if place != "." else root
    return None


def _names(path: Path) -> list[str]:
    try:
        names = path.read_text("utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: this list cannot be read: {error}") from None
    if not names:
        raise DataError(f"{path}: this list is empty. It holds the name of one image a line.")
    return sorted(set(names))


def _has_masks(root: Path, path: Path) -> bool:
    return any((root / _MASKS / f"{name}.png").is_file() for name in _names(path))


def _listed_pairs(root: Path, path: Path) -> list[FileSample]:
    pairs = [
        FileSample(name, (root / "JPEGImages" / f"{name}.jpg",), root / _MASKS / f"{name}.png")
        for name in _names(path)
    ]
    lacking = [file for pair in pairs for file in pair.files if not file.is_file()]
    if lacking:
        raise DataError(
            f"{path} lists images of which {len(lacking)} files do not exist: {listed(lacking)}. "
            "Put them there, or take the names out of the list."
        )
    return pairs


def _download(parent: Path) -> None:
    fetch = partial(VOCSegmentation, year="2012", image_set="train", download=True)
    try:
        download(parent, _KIT, SITE, fetch, PATIENCE_S)
    except DownloadFailedError as error:
        raise DataError(
            f"Pascal VOC 2012 cannot be downloaded into {parent}: {error}. Start again where "
            f"{SITE} can be reached, or unpack that file into {parent}, so that {parent / _KIT} "
            "exists, or give your copy with --set data.root=FOLDER."
        ) from None
