"""Functions that write small data folders, used by many tests."""

from pathlib import Path

import numpy as np
from PIL import Image

from unetexp.data.labels import VOID


def blobs(rng, size, classes, void=0.0):
    """A random image (H, W, 3) uint8 and a mask (H, W) that follows from its brightness."""
    height, width = size
    mask = np.zeros(size, np.uint8)
    rows, columns = np.mgrid[:height, :width]
    for label in range(1, classes):
        for _ in range(2):
            y, x, r = rng.integers(height), rng.integers(width), rng.uniform(0.15, 0.3) * min(size)
            mask[(rows - y) ** 2 + (columns - x) ** 2 < r**2] = label
    mask[0, :classes] = np.arange(classes)  # every class in every mask
    noise = rng.normal(0, 8, (*size, 3))
    image = 40 + mask[..., np.newaxis] * (180 / max(classes - 1, 1)) + noise
    mask[rng.random(size) < void] = VOID
    return image.clip(0, 255).astype(np.uint8), mask


def write_folder_dataset(
    root: Path,
    splits={"train": 4, "val": 2},  # noqa: B006
    size=(40, 48),
    classes=2,
    *,
    class_names=None,
    void=0.0,
    seed=0,
):
    """Write ROOT/<split>/{images,masks}/NNN.png; split "" is the layout without split folders.

    `void` is the fraction of void pixels. Returns `root`.
    """
    rng = np.random.default_rng(seed)
    for split, count in splits.items():
        for folder in ("images", "masks"):
            (root / split / folder).mkdir(parents=True)
        for number in range(count):
            image, mask = blobs(rng, size, classes, void)
            Image.fromarray(image).save(root / split / "images" / f"{number:03d}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{number:03d}.png")
    if class_names:
        (root / "classes.txt").write_text("\n".join(class_names) + "\n", encoding="utf-8")
    return root


def write_pets(root, trainval=5, test=2):
    """A small set in the layout that torchvision writes. Returns `root`."""
    base, rng = root / "oxford-iiit-pet", np.random.default_rng(0)
    (base / "images").mkdir(parents=True)
    (base / "annotations/trimaps").mkdir(parents=True)
    for split, count in (("trainval", trainval), ("test", test)):
        names = [f"{split}_{number}" for number in range(count)]
        lines = "".join(f"{name} 1 1 1\n" for name in names)
        (base / f"annotations/{split}.txt").write_text(lines)
        for name in names:
            image = rng.integers(0, 256, (20, 24, 3)).astype(np.uint8)
            trimap = rng.integers(1, 4, (20, 24)).astype(np.uint8)
            Image.fromarray(image).save(base / f"images/{name}.jpg")
            Image.fromarray(trimap).save(base / f"annotations/trimaps/{name}.png")
    return root
