"""The Oxford-IIIT Pet data set, downloaded by torchvision.

Parkhi et al., Cats and Dogs, CVPR 2012, doi:10.1109/CVPR.2012.6248092. Its trimaps (1 pet,
2 background, 3 not classified) become the classes background, pet, border. The test split is the
authors'; val is drawn from their trainval by a seed.

C channels, H W image size.
"""

from __future__ import annotations

import shutil
import tarfile
import uuid
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from filelock import FileLock
from PIL import Image
from pydantic import AfterValidator, Field
from torchvision.datasets import OxfordIIITPet

from unetexp.component import Component
from unetexp.data.cache import cache_folder
from unetexp.data.collection import Collection, Labels, Progress, RawImage
from unetexp.data.file_collection import Draw, FilePair, FileReader, collect_files
from unetexp.data.sources.folder import absolute
from unetexp.data.splits import seeded_split
from unetexp.errors import DataError
from unetexp.network import no_answer, reason, socket_timeout

CLASSES = ("background", "pet", "border")
# where torchvision downloads from
SITE = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/annotations.tar.gz"
PATIENCE_S = 10.0

_FOLDER = "oxford-iiit-pet"  # torchvision's name for it
_TRIMAP_TO_CLASS = np.array([0, 1, 0, 2], np.uint8)


class OxfordPet(Component):
    """7,349 photographs of cats and dogs in three classes; downloads 0.8 GB the first time."""

    kind: Literal["oxford_pet"] = "oxford_pet"
    root: Annotated[str, Field(min_length=1), AfterValidator(absolute)] | None = Field(
        None, description="the folder to download into; null: in the cache folder"
    )
    val_fraction: float = Field(
        0.2, gt=0, lt=1, description="share of the trainval images for the validation split"
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="seed of the split")

    def collect(self, on_progress: Progress | None = None) -> Collection:
        """The pairs, downloaded if they are not there yet.

        Raises DataError, within 15 s, if the site does not answer.
        """
        parent = Path(self.root) if self.root else cache_folder() / "downloads"
        root = parent / _FOLDER
        if not root.is_dir():
            _download(parent)
        trainval = _listed_pairs(root, "trainval")
        draw = Draw(
            trainval,
            lambda classes: seeded_split(
                list(classes), {"val": self.val_fraction}, self.seed, classes
            ),
        )
        return collect_files(
            root,
            {"test": _listed_pairs(root, "test")},
            class_names=CLASSES,
            split_record={
                "method": "seeded trainval, official test",
                **self.model_dump(include={"val_fraction", "seed"}),
            },
            draw=draw,
            reader=_READER,
            on_progress=on_progress,
        )


def _listed_pairs(root: Path, split: str) -> list[FilePair]:
    path = root / "annotations" / f"{split}.txt"
    try:
        names = [line.split()[0] for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: this file cannot be read ({error}): the download is not complete. "
            f"Remove {root} and start again."
        ) from None
    return [
        FilePair(
            name,
            root / "images" / f"{name}.jpg",
            root / "annotations" / "trimaps" / f"{name}.png",
        )
        for name in sorted(names)
    ]


def _read_image(path: Path) -> RawImage:
    """As torchvision reads it: some of the .jpg files are really PNG, GIF or CMYK."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except (OSError, SyntaxError, ValueError) as error:
        raise _unreadable(path, path.parents[1], error) from None


def _read_trimap(path: Path) -> Labels:
    try:
        with Image.open(path) as trimap:
            labels: Labels = _TRIMAP_TO_CLASS[np.asarray(trimap)]
    except (OSError, SyntaxError, ValueError, IndexError) as error:
        raise _unreadable(path, path.parents[2], error) from None
    return labels


_READER = FileReader("oxford_pet trimaps", _read_image, _read_trimap)


def _unreadable(path: Path, root: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: this file cannot be read ({error}). Remove {root} and start again to download "
        "it again."
    )


def _download(parent: Path) -> None:
    """Download into `parent` with torchvision, completely or not at all."""
    if why := no_answer(SITE, PATIENCE_S):
        raise _unavailable(parent, why)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(parent / f"{_FOLDER}.lock"):
            if (parent / _FOLDER).is_dir():
                return
            scratch = parent / f"{_FOLDER}.new-{uuid.uuid4().hex}"
            try:
                with socket_timeout(PATIENCE_S):
                    OxfordIIITPet(scratch, download=True)
                (scratch / _FOLDER).rename(parent / _FOLDER)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    except (OSError, RuntimeError, HTTPException, EOFError, tarfile.TarError) as error:
        raise _unavailable(parent, reason(error)) from None


def _unavailable(parent: Path, why: str) -> DataError:
    return DataError(
        f"The Oxford-IIIT Pet images cannot be downloaded into {parent}: {why}. Start again "
        f"where {SITE} can be reached, or unpack images.tar.gz and annotations.tar.gz from that "
        f"site into {parent / _FOLDER}."
    )
