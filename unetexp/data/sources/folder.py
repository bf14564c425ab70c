"""The user's own images: a folder of images with one mask each.

ROOT/{train,val,test}/{images,masks}     the user's own split; test is optional
ROOT/{images,masks}                      split here, by a seed
ROOT/classes.txt                         optional: one class name per line, in index order
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from unetexp.data.collection import SPLITS, Progress
from unetexp.data.files.file_sample import FileSample, Listing
from unetexp.data.files.pairing import entries, pair_files
from unetexp.data.labels import VOID
from unetexp.data.sources.file_source import FileSource, absolute
from unetexp.errors import DataError

CLASSES_FILE = "classes.txt"
_CLASS_NAME = re.compile(r"\w[\w .:-]{0,99}")  # what MLflow accepts in the name of a metric


class Folder(FileSource):
    """Images and masks in a folder, paired by name without the extension.

    PNG, JPEG and TIFF, 8 and 16 bit, grey, RGB and palette. 255 is void, unless the masks hold
    only 0 and 255 or `label_map` says otherwise. The fractions and the seed apply if the folder
    has no split of its own: then each class gets its share of every split.
    """

    first_fields: ClassVar[tuple[str, ...]] = (
        "kind",
        "root",
        "val_fraction",
        "test_fraction",
        "seed",
    )

    kind: Literal["folder"] = "folder"
    root: Annotated[str, Field(min_length=1), AfterValidator(absolute)] = Field(
        description="the folder; stored as an absolute path"
    )

    def listing(self, on_progress: Progress | None = None) -> Listing:
        """The folder's pairs."""
        root = Path(self.root)
        if not root.is_dir():
            what = "is a file, not a folder" if root.is_file() else "does not exist"
            raise DataError(f"{root} {what}. Give the folder that holds images and masks.")
        names = read_class_names(root / CLASSES_FILE)
        if _has_own_split(root):
            return Listing(root, _own_split(root), class_names=names)
        return Listing(root, unsplit=pair_files(root, root), class_names=names, method="seeded")


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


def _own_split(root: Path) -> dict[str, list[FileSample]]:
    return {name: pair_files(root, root / name) for name in SPLITS if (root / name).exists()}
