"""The user's own images: a folder of images with one mask each.

ROOT/{train,val,test}/{images,masks}     the user's own split; test is optional
ROOT/{images,masks}                      split here, by a seed
ROOT/classes.txt                         optional: one class name per line, in index order
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from unetexp.component import Component
from unetexp.data.collection import SPLITS, Collection, Progress
from unetexp.data.file_collection import Draw, FilePair, collect_files
from unetexp.data.label_map import label_map_text
from unetexp.data.labels import VOID
from unetexp.data.pairing import entries, pair_files
from unetexp.data.splits import seeded_split
from unetexp.errors import ConfigError, DataError

CLASSES_FILE = "classes.txt"
_CLASS_NAME = re.compile(r"\w[\w .:-]{0,99}")  # what MLflow accepts in the name of a metric


def absolute(path: str) -> str:
    """An absolute path, because workers have their own working directories."""
    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError:
        raise ConfigError(f"{path}: there is no such user. Give the path without `~`.") from None


class Folder(Component):
    """Images and masks in a folder, paired by name without the extension.

    PNG, JPEG and TIFF, 8 and 16 bit, grey, RGB and palette. 255 is void, unless the masks hold
    only 0 and 255 or `label_map` says otherwise. The fractions and the seed apply if the folder
    has no split of its own: then each class gets its share of every split.
    """

    kind: Literal["folder"] = "folder"
    root: Annotated[str, Field(min_length=1), AfterValidator(absolute)] = Field(
        description="the folder; stored as an absolute path"
    )
    val_fraction: float = Field(
        0.2, gt=0, lt=1, description="share of the images for the validation split"
    )
    test_fraction: float = Field(
        0.0, ge=0, lt=1, description="share of the images for the test split; 0: no test split"
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="seed of the split")
    label_map: Annotated[str | None, BeforeValidator(label_map_text)] = Field(
        None,
        description="the class that each value stored in the masks means, such as "
        "{0: 0, 1..127: 1, 128..254: 2, 255: void}: a value or a range, then the number of a class "
        "or void; "
        "classes.txt then names the map's classes; null: the values are the classes' numbers",
    )

    @model_serializer(mode="wrap")
    def _without_an_unset_map(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a map the record is that of earlier versions, so their sweeps can resume."""
        tree: dict[str, Any] = dump(self)
        return {name: value for name, value in tree.items() if name != "label_map" or value}

    @model_validator(mode="after")
    def _leaves_a_train_split(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            raise ConfigError(
                f"val_fraction {self.val_fraction} and test_fraction {self.test_fraction} leave "
                "nothing to train on: together they must be below 1."
            )
        return self

    def collect(self, on_progress: Progress | None = None) -> Collection:
        """The folder's pairs, every file found, paired and hashed. Raises DataError."""
        root = Path(self.root)
        if not root.is_dir():
            what = "is a file, not a folder" if root.is_file() else "does not exist"
            raise DataError(f"{root} {what}. Give the folder that holds images and masks.")
        splits: dict[str, list[FilePair]] = {}
        draw = None
        record: dict[str, Any] = {"method": "folders"}
        if _has_own_split(root):
            splits = _own_split(root)
        else:
            draw = self._draw(root)
            record = {
                "method": "seeded",
                **self.model_dump(include={"val_fraction", "test_fraction", "seed"}),
            }
        return collect_files(
            root,
            splits,
            class_names=read_class_names(root / CLASSES_FILE),
            split_record=record,
            draw=draw,
            label_map=self.label_map,
            on_progress=on_progress,
        )

    def _draw(self, root: Path) -> Draw:
        fractions = {"val": self.val_fraction, "test": self.test_fraction}
        return Draw(
            pair_files(root, root),
            lambda classes: seeded_split(list(classes), fractions, self.seed, classes),
        )


def read_class_names(path: Path) -> tuple[str, ...] | None:
    """The names in a classes.txt, None if there is no such file. Raises DataError."""
    if not path.exists():
        return None
    if not path.resolve().is_relative_to(path.parent.resolve()):
        raise DataError(
            f"{path}: this link leads to {path.resolve()}, outside {path.parent}. Put the file "
            "itself there."
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: this file cannot be read as UTF-8 text: {error}") from None
    names = [line.strip() for line in "\n".join(lines).rstrip().split("\n")]
    for number, name in enumerate(names, 1):
        if not _CLASS_NAME.fullmatch(name):
            raise DataError(
                f"{path}: line {number} is {name!r}. Each line names one class, in index order, "
                "in at most 100 letters, digits, spaces and . : - _, beginning with a letter or "
                "digit."
            )
        if name in names[: number - 1]:
            raise DataError(f"{path}: line {number} names {name!r} a second time: rename one.")
    if not 2 <= len(names) <= VOID:
        raise DataError(
            f"{path}: the number of classes is {len(names)}. 2 to {VOID} are allowed: name the "
            "background too."
        )
    return tuple(names)


def _has_own_split(root: Path) -> bool:
    """Whether the folder has the layout with split folders; DataError where it has neither."""
    found = [entry.name for entry in entries(root)]
    own, flat = [n for n in SPLITS if n in found], [n for n in ("images", "masks") if n in found]
    if own and flat:
        raise DataError(
            f"{root} holds {' and '.join(own)} beside {' and '.join(flat)}: remove or move one of "
            "the two, so that it is clear which images are meant."
        )
    if not own and not flat:
        raise DataError(
            f"{root} holds {', '.join(found[:10]) or 'nothing'}. It must hold the folders images "
            "and masks, or train and val with images and masks in each."
        )
    for name in ("train", "val") if own else ("images", "masks"):
        if name not in found:
            others = [n for n in found if n not in (*SPLITS, "images", "masks")]
            near = difflib.get_close_matches(name, others, n=1, cutoff=0.4)
            raise DataError(
                f"{root} holds {' and '.join(own or flat)} but not {name}. "
                + (f"Rename {near[0]} to {name}" if near else f"Add {root / name}")
                + (", or put all images into images and masks to have them split." if own else ".")
            )
    return bool(own)


def _own_split(root: Path) -> dict[str, list[FilePair]]:
    return {name: pair_files(root, root / name) for name in SPLITS if (root / name).exists()}
