"""The Oxford-IIIT Pet data set, downloaded by torchvision.

Parkhi et al., Cats and Dogs, CVPR 2012, doi:10.1109/CVPR.2012.6248092. Its trimaps (1 pet,
2 background, 3 not classified) become the classes background, pet, border. The test split is the
authors'; val is drawn from their trainval by a seed.

C channels, H W image size.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import AfterValidator, Field
from torchvision.datasets import OxfordIIITPet

from unetexp.data.collection import Labels, Progress, RawImage
from unetexp.data.files.file_sample import FileReader, FileSample, Listing
from unetexp.data.formats.downloads import DownloadFailedError, download, download_folder
from unetexp.data.sources.file_source import FileSource, absolute
from unetexp.errors import DataError

CLASSES = ("background", "pet", "border")
# where torchvision downloads from
SITE = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/annotations.tar.gz"
PATIENCE_S = 10.0

_FOLDER = "oxford-iiit-pet"  # torchvision's name for it
_TRIMAP_TO_CLASS = np.array([0, 1, 0, 2], np.uint8)


class OxfordPet(FileSource):
    """7,349 photographs of cats and dogs in three classes; downloads 0.8 GB the first time."""

    first_fields: ClassVar[tuple[str, ...]] = ("kind", "root", "val_fraction", "seed")

    kind: Literal["oxford_pet"] = "oxford_pet"
    root: Annotated[str, Field(min_length=1), AfterValidator(absolute)] | None = Field(
        None, description="the folder to download into; null: in the cache folder"
    )

    def listing(self, on_progress: Progress | None = None) -> Listing:
        """The official pairs, downloaded if they are not there yet.

        Raises DataError, within 15 s, if the site does not answer.
        """
        parent = download_folder(self.root)
        root = parent / _FOLDER
        if not root.is_dir():
            _download(parent)
        return Listing(
            root,
            {"test": _listed_pairs(root, "test")},
            unsplit=_listed_pairs(root, "trainval"),
            class_names=CLASSES,
            method="seeded trainval, official test",
        )

    def is_here(self) -> bool:
        """Whether the images are on this machine already."""
        parent = download_folder(self.root)
        return (parent / _FOLDER).is_dir()

    def reader(self) -> FileReader:
        """The trimaps hold 1 to 3."""
        return _READER


def _listed_pairs(root: Path, split: str) -> list[FileSample]:
    path = root / "annotations" / f"{split}.txt"
    try:
        names = [line.split()[0] for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: this file cannot be read ({error}): the download is not complete. "
            f"Remove {root} and start again."
        ) from None
    return [
        FileSample(
            name,
            (root / "images" / f"{name}.jpg",),
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


_READER = FileReader(
    "oxford_pet trimaps",
    lambda sample: _read_image(sample.image),
    lambda sample: _read_trimap(sample.mask),
)


def _unreadable(path: Path, root: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: this file cannot be read ({error}). Remove {root} and start again to download "
        "it again."
    )


def _download(parent: Path) -> None:
    """Download into `parent` with torchvision."""
    try:
        download(parent, _FOLDER, SITE, partial(OxfordIIITPet, download=True), PATIENCE_S)
    except DownloadFailedError as error:
        raise _unavailable(parent, str(error)) from None


def _unavailable(parent: Path, why: str) -> DataError:
    return DataError(
        f"The Oxford-IIIT Pet images cannot be downloaded into {parent}: {why}. Start again "
        f"where {SITE} can be reached, or unpack images.tar.gz and annotations.tar.gz from that "
        f"site into {parent / _FOLDER}."
    )
