"""A folder of made images, opened as a user's data set, with its cache in the same place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from unetexp.data import Dataset, Folder, open_dataset
from unetexp.data.cache_folder import CACHE_VARIABLE


@contextmanager
def made_dataset(train: int, size: tuple[int, int], classes: int = 4) -> Iterator[Dataset]:
    """`train` images of `size` (height, width) to train on and one to validate on."""
    before = os.environ.get(CACHE_VARIABLE)
    with TemporaryDirectory(prefix="unetexp-bench-") as folder:
        os.environ[CACHE_VARIABLE] = str(Path(folder) / "cache")
        try:
            write_images(Path(folder) / "data", {"train": train, "val": 1}, size, classes)
            yield open_dataset(Folder(root=str(Path(folder) / "data")))
        finally:
            del os.environ[CACHE_VARIABLE]
            if before is not None:
                os.environ[CACHE_VARIABLE] = before


def write_images(root: Path, splits: dict[str, int], size: tuple[int, int], classes: int) -> None:
    """Write ROOT/<split>/{images,masks}/NNN.png: blocks of classes, brighter by class, noisy."""
    rng = np.random.default_rng(0)
    height, width = size
    noise = rng.integers(0, 60, (*size, 3), dtype=np.uint8)
    for split, count in splits.items():
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for number in range(count):
            blocks = rng.integers(classes, size=(-(-height // 8), -(-width // 8)), dtype=np.uint8)
            blocks.flat[:classes] = np.arange(classes)  # every class in every mask
            mask = blocks.repeat(8, 0).repeat(8, 1)[:height, :width]
            image = mask[..., None] * np.uint8(180 // classes) + np.roll(noise, number, axis=0)
            for kind, pixels in (("images", image), ("masks", mask)):
                path = root / split / kind / f"{number:03d}.png"
                Image.fromarray(pixels).save(path, compress_level=0)  # written in little time
