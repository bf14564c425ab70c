"""CamVid: frames of four drives, in both forms in which it is passed on.

Brostow et al., Semantic Object Classes in Video, Pattern Recognition Letters 2009,
doi:10.1016/j.patrec.2008.04.005. The 11 classes are those of SegNet (Badrinarayanan et al. 2017,
doi:10.1109/TPAMI.2016.2644615).

    train/NAME.png  trainannot/NAME.png      numbers of 11 classes, 11 is void (SegNet's tutorial)
    train/NAME.png  train_labels/NAME_L.png  colours, named in label_colors.txt or class_dict.csv
    701_StillsRaw_full/NAME.png  LabeledApproved_full/NAME_L.png   the same, without splits
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field

from unetexp.data.collection import SPLITS, Labels, Progress
from unetexp.data.files.file_sample import FileReader, FileSample, Listing
from unetexp.data.files.given_splits import given_splits
from unetexp.data.formats.colour_table import ColourTable, read_colour_mask, read_colour_table
from unetexp.data.labels import VOID
from unetexp.data.reading.image_decoding import read_mask
from unetexp.data.sources.file_source import FileSource, absolute
from unetexp.errors import DataError, listed

SITE = "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/"
CLASSES = {  # SegNet's 11 classes, and which of the 32 they are made of
    "Sky": ("Sky",),
    "Building": ("Building", "Archway", "Bridge", "Tunnel", "Wall"),
    "Pole": ("Column_Pole", "TrafficCone"),
    "Road": ("Road", "LaneMkgsDriv", "LaneMkgsNonDriv"),
    "Pavement": ("Sidewalk", "ParkingBlock", "RoadShoulder"),
    "Tree": ("Tree", "VegetationMisc"),
    "SignSymbol": ("SignSymbol", "Misc_Text", "TrafficLight"),
    "Fence": ("Fence",),
    "Car": ("Car", "OtherMoving", "SUVPickupTruck", "Truck_Bus", "Train"),
    "Pedestrian": ("Pedestrian", "Animal", "CartLuggagePram", "Child"),
    "Bicyclist": ("Bicyclist", "MotorcycleScooter"),
}

_TABLES = ("label_colors.txt", "class_dict.csv")
_WHOLE = ("701_StillsRaw_full", "LabeledApproved_full")
_SUFFIXES = (".png", ".jpg", ".jpeg")
_VOID_NAMES = {"void", "unlabelled", "unlabeled"}


@dataclass(frozen=True)
class _Form:
    """One of the forms, as it was found."""

    folders: Mapping[str, tuple[Path, Path]]  # split, or "" for all: images and masks
    table: ColourTable | None  # None: the masks hold numbers


class Camvid(FileSource):
    """701 frames of drives in 32 or 11 classes, in the original form or in SegNet's."""

    first_fields: ClassVar[tuple[str, ...]] = ("kind", "root")

    kind: Literal["camvid"] = "camvid"
    root: Annotated[str, Field(min_length=1), AfterValidator(absolute)] = Field(
        description="the folder of train and trainannot (SegNet's form), of train, train_labels "
        "and label_colors.txt or class_dict.csv, or of 701_StillsRaw_full and LabeledApproved_full"
    )
    classes: Literal[11, 32] | None = Field(
        None,
        description="SegNet's 11 classes, or those of the colour table (32 with Void, which is no "
        "class); null: 11 where the masks hold numbers, else 32",
    )

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """Whether `root` has the folders of one of the forms."""
        return bool(_folders(root)) and (
            _is_numbered(root) or any((root / name).is_file() for name in _TABLES)
        )

    def listing(self, on_progress: Progress | None = None) -> Listing:
        """The official splits, or all frames where they are in one folder."""
        root, form = Path(self.root), self._form()
        names = None if self.label_map else tuple(self._class_names(form))
        samples = {split: _pairs(images, masks) for split, (images, masks) in form.folders.items()}
        notes = () if form.table is None else (self._colours_note(form.table),)
        return given_splits(
            root,
            samples,
            names,
            test_fraction=self.test_fraction,
            method="official folders",
            notes=notes,
        )

    def reader(self) -> FileReader:
        """Numbers as they are with 11 as void, and colours by the table."""
        plain, form = super().reader(), self._form()
        if form.table is None:
            return FileReader(f"camvid numbers, {plain.name}", plain.image, _numbered)
        table, classes = form.table, self._classes(form.table)
        told = sorted((table.colours[name], label) for name, label in classes.items())
        return FileReader(
            f"camvid {told}, {plain.name}",
            plain.image,
            lambda sample: read_colour_mask(sample.mask, table, classes),
        )

    def _form(self) -> _Form:
        root = Path(self.root)
        folders = _folders(root)
        if not folders or ("train" not in folders and "" not in folders):
            raise DataError(
                f"{root}: there is no CamVid. It must hold train and trainannot, train and "
                f"train_labels, or {' and '.join(_WHOLE)}. CamVid is at {SITE}."
            )
        if _is_numbered(root):
            if self.classes == 32:
                raise DataError(
                    f"{root}: these masks (trainannot) hold 11 classes; data.classes=32 needs the "
                    f"original colour masks of {SITE}."
                )
            return _Form(folders, None)
        found = [root / name for name in _TABLES if (root / name).is_file()]
        if not found:
            raise DataError(
                f"{root}: {' or '.join(_TABLES)} is missing. It names the class of each colour, "
                f"such as `64 128 64 Animal`; the original is at {SITE}."
            )
        return _Form(folders, read_colour_table(found[0]))

    def _class_names(self, form: _Form) -> list[str]:
        if form.table is None or self.classes == 11:
            return list(CLASSES)
        return [name for name in form.table.colours if name.lower() not in _VOID_NAMES]

    def _classes(self, table: ColourTable) -> dict[str, int]:
        """The class of each name in the table."""
        if self.classes != 11:
            classes = [name for name in table.colours if name.lower() not in _VOID_NAMES]
            return {n: classes.index(n) if n in classes else VOID for n in table.colours}
        parts = {part.lower(): k for k, parts in enumerate(CLASSES.values()) for part in parts}
        parts |= dict.fromkeys(_VOID_NAMES, VOID)
        unknown = [name for name in table.colours if name.lower() not in parts]
        if unknown:
            raise DataError(
                f"{table.path}: it is not known which of the 11 classes {listed(unknown)} belong "
                "to. Rename them as in CamVid, or keep all: --set data.classes=32."
            )
        return {name: parts[name.lower()] for name in table.colours}

    def _colours_note(self, table: ColourTable) -> str:
        void = [name for name, label in self._classes(table).items() if label == VOID]
        return (
            f"Colours are read by {table.path.name}; void: {listed(void) or 'none'}."
            + " Its 32 classes are merged to SegNet's 11." * (self.classes == 11)
        )


def _is_numbered(root: Path) -> bool:
    return (root / "trainannot").is_dir()


def _folders(root: Path) -> dict[str, tuple[Path, Path]]:
    """The folders of images and masks of each split, "" where there is no split."""
    end = "annot" if _is_numbered(root) else "_labels"
    folders = {name: (root / name, root / f"{name}{end}") for name in SPLITS}
    found = {name: pair for name, pair in folders.items() if all(f.is_dir() for f in pair)}
    whole = (root / _WHOLE[0], root / _WHOLE[1])
    return found or ({"": whole} if all(f.is_dir() for f in whole) else {})


def _pairs(images: Path, masks: Path) -> list[FileSample]:
    found = {path.stem: path for path in _pictures(masks)}
    pictures, pairs, lacking = _pictures(images), [], []
    for image in pictures:
        mask = found.get(image.stem) or found.get(f"{image.stem}_L")
        if mask is None:
            lacking.append(image.name)
        else:
            pairs.append(FileSample(image.stem, (image,), mask, group=_drive(image.stem)))
    if not pictures:
        raise DataError(f"{images}: there are no images here.")
    if lacking:
        raise DataError(
            f"{len(lacking)} of the {len(pictures)} images in {images} have no mask in {masks}: "
            f"{listed(lacking)}. A mask is named as its image, or with _L at the end."
        )
    return pairs


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in _SUFFIXES and path.name[0] != "."
    )


def _drive(stem: str) -> str:
    """The drive that a frame belongs to, such as 0006R0 of 0006R0_f00930: neighbours are alike."""
    return stem.partition("_")[0] if "_" in stem else ""


def _numbered(sample: FileSample) -> Labels:
    labels = read_mask(sample.mask)
    if ((labels > len(CLASSES)) & (labels != VOID)).any():
        raise DataError(
            f"{sample.mask}: the mask holds {labels[labels != VOID].max()}. SegNet's form has the "
            f"classes 0 to {len(CLASSES) - 1}, and {len(CLASSES)} or {VOID} is void."
        )
    return np.where(labels == len(CLASSES), np.uint8(VOID), labels)
