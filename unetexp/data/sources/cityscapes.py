"""Cityscapes, fetched by hand: its licence asks for an account.

Cordts et al., The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016,
doi:10.1109/CVPR.2016.350. Ids, classes and categories as in cityscapesscripts/helpers/labels.py.

    leftImg8bit/{train,val}/CITY/NAME_leftImg8bit.png
    gtFine/{train,val}/CITY/NAME_gtFine_labelIds.png (or _labelTrainIds.png)
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

from unetexp.data.collection import Labels, Progress
from unetexp.data.files.file_sample import FileReader, FileSample, Listing
from unetexp.data.files.given_splits import given_splits
from unetexp.data.labels import VOID
from unetexp.data.reading.image_decoding import read_mask
from unetexp.data.sources.file_source import FileSource, absolute
from unetexp.errors import DataError, listed

SITE = "https://www.cityscapes-dataset.com"
CLASSES = {  # the 19 classes in the order of their train ids: id and category
    "road": (7, "flat"),
    "sidewalk": (8, "flat"),
    "building": (11, "construction"),
    "wall": (12, "construction"),
    "fence": (13, "construction"),
    "pole": (17, "object"),
    "traffic light": (19, "object"),
    "traffic sign": (20, "object"),
    "vegetation": (21, "nature"),
    "terrain": (22, "nature"),
    "sky": (23, "sky"),
    "person": (24, "human"),
    "rider": (25, "human"),
    "car": (26, "vehicle"),
    "truck": (27, "vehicle"),
    "bus": (28, "vehicle"),
    "train": (31, "vehicle"),
    "motorcycle": (32, "vehicle"),
    "bicycle": (33, "vehicle"),
}
CATEGORIES = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
DRIVING = ("road", "sidewalk", *CATEGORIES[1:])

_IMAGE, _IDS, _TRAIN_IDS = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"
_LAST_ID = 33
_UNKNOWN = -1


class Cityscapes(FileSource):
    """2,975 street scenes for training and 500 for validation, in 19 classes or fewer."""

    first_fields: ClassVar[tuple[str, ...]] = ("kind", "root")

    kind: Literal["cityscapes"] = "cityscapes"
    root: Annotated[str, Field(min_length=1), AfterValidator(absolute)] = Field(
        description="the folder that holds leftImg8bit and gtFine, from "
        "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip of "
        "https://www.cityscapes-dataset.com"
    )
    classes: Literal["train_ids", "categories", "driving"] = Field(
        "train_ids",
        description="the 19 classes that are evaluated, the 7 categories that they are part of, or "
        "driving: the categories with road and sidewalk apart, 8 classes",
    )

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """Whether `root` holds leftImg8bit and gtFine."""
        return (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir()

    def listing(self, on_progress: Progress | None = None) -> Listing:
        """The official train and val images."""
        root = Path(self.root)
        if not self.looks_like(root):
            lacking = [n for n in ("leftImg8bit", "gtFine") if not (root / n).is_dir()]
            raise DataError(
                f"{root}: {' and '.join(lacking)} of Cityscapes must be here. Cityscapes is "
                f"fetched by hand: make an account at {SITE}, download "
                f"leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip and unpack both into "
                f"{root}."
            )
        splits = {name: _pairs(root, name) for name in ("train", "val") if _has(root, name)}
        if "train" not in splits:
            raise DataError(f"{root / 'leftImg8bit/train'}: there are no images (*{_IMAGE}) here.")
        blank = ("The official test masks are blank: they are left out.",) * _has(root, "test")
        return given_splits(
            root,
            splits,
            None if self.label_map else self._class_names(),
            test_fraction=self.test_fraction,
            method="official folders",
            notes=blank,
        )

    def reader(self) -> FileReader:
        """Label ids become classes; ids that are not evaluated become void."""
        plain, (ids, train_ids) = super().reader(), _tables(self.classes)

        def mask(sample: FileSample) -> Labels:
            trained = sample.mask.name.endswith(_TRAIN_IDS)
            return _classes(sample.mask, train_ids if trained else ids)

        return FileReader(f"cityscapes {self.classes}, {plain.name}", plain.image, mask)

    def _class_names(self) -> tuple[str, ...]:
        return {"train_ids": tuple(CLASSES), "categories": CATEGORIES, "driving": DRIVING}[
            self.classes
        ]


def _has(root: Path, split: str) -> bool:
    return any((root / "leftImg8bit" / split).glob(f"*/*{_IMAGE}"))


def _pairs(root: Path, split: str) -> list[FileSample]:
    images = sorted((root / "leftImg8bit" / split).glob(f"*/*{_IMAGE}"))
    pairs, lacking = [], []
    for image in images:
        name, city = image.name.removesuffix(_IMAGE), image.parent.name
        folder = root / "gtFine" / split / city
        found = [f for end in (_TRAIN_IDS, _IDS) if (f := folder / f"{name}{end}").is_file()]
        if found:
            pairs.append(FileSample(name, (image,), found[0], group=city))
        else:
            lacking.append(folder / f"{name}{_IDS}")
    if lacking:
        raise DataError(
            f"{len(lacking)} of the {len(images)} {split} images have no mask: {listed(lacking)}. "
            f"Unpack gtFine_trainvaltest.zip of {SITE} into {root}."
        )
    return pairs


def _tables(classes: str) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
    """The class of each label id (256,), and of each train id (256,)."""
    ids, train_ids = np.full((2, VOID + 1), _UNKNOWN, np.int16)
    ids[: _LAST_ID + 1] = train_ids[len(CLASSES)] = VOID
    ids[VOID] = train_ids[VOID] = VOID  # -1, the licence plates, is stored as 255
    for train_id, (name, (label_id, category)) in enumerate(CLASSES.items()):
        label = train_id
        if classes == "categories":
            label = CATEGORIES.index(category)
        elif classes == "driving":
            label = DRIVING.index(name if name in DRIVING else category)
        ids[label_id] = train_ids[train_id] = label
    return ids, train_ids


def _classes(path: Path, table: npt.NDArray[np.int16]) -> Labels:
    stored = read_mask(path)
    classes = table[stored]
    if (classes == _UNKNOWN).any():
        stray = np.unique(stored[classes == _UNKNOWN]).tolist()
        raise DataError(
            f"{path}: the mask holds {listed(stray)}, which Cityscapes does not know: its label "
            f"ids go from 0 to {_LAST_ID}, its train ids from 0 to {len(CLASSES) - 1}, 255 is void."
        )
    return classes.astype(np.uint8)
