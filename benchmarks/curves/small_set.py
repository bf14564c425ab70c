"""A small data set cut out of a larger one, so that a run takes minutes on a CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.curves.runs import SIDE_PX


def cut(root: Path, target: Path) -> None:
    """Write a small folder set: a square of SIDE_PX at a random place of every image.

    A test split is cut where there is one.
    """
    for split in (name for name in ("train", "val", "test") if (root / name).is_dir()):
        rng = np.random.default_rng(0)
        for image in sorted((root / split / "images").iterdir()):
            mask = root / split / "masks" / f"{image.stem}.png"
            with Image.open(image) as opened, Image.open(mask) as labels:
                left, top = (int(rng.integers(0, side - SIDE_PX + 1)) for side in opened.size)
                box = (left, top, left + SIDE_PX, top + SIDE_PX)
                for folder, picture in (("images", opened.convert("RGB")), ("masks", labels)):
                    (target / split / folder).mkdir(parents=True, exist_ok=True)
                    picture.crop(box).save(target / split / folder / f"{image.stem}.png")
    classes = root / "classes.txt"
    (target / "classes.txt").write_text(classes.read_text(encoding="utf-8"), encoding="utf-8")
