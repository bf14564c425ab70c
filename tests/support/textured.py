"""Small data folders with a texture of their own in every image, so that none resembles another."""

import numpy as np
from PIL import Image
from scipy import ndimage


def textured(rng, side=64):
    """An image (H, W, 3) and a mask (H, W) of three classes, two discs on a rough ground."""
    ground = sum(
        ndimage.gaussian_filter(rng.normal(size=(side, side)), sigma) * sigma for sigma in (1, 3, 8)
    )
    rows, columns = np.mgrid[:side, :side]
    mask = np.zeros((side, side), np.uint8)
    for label, corner in ((1, 0.3), (2, 0.7)):
        y, x = rng.uniform(-0.08, 0.08, 2) * side + corner * side
        radius = rng.uniform(0.15, 0.22) * side
        mask[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = label
    grey = 90 + 55 * mask + 30 * ground / ground.std()
    tint = rng.uniform(-20, 20, 3)
    noise = rng.normal(0, 3, (side, side, 3))
    return (grey[..., None] + tint + noise).clip(0, 255).astype(np.uint8), mask


def write_textured(root, splits={"train": 12, "val": 4, "test": 4}, seed=0):  # noqa: B006
    """Write ROOT/<split>/{images,masks}/NAME.png with names that say nothing. Returns `root`."""
    rng = np.random.default_rng(seed)
    for split, count in splits.items():
        for folder in ("images", "masks"):
            (root / split / folder).mkdir(parents=True)
        for _ in range(count):
            image, mask = textured(rng)
            name = "".join(rng.choice(list("bcdfghjk"), 10))
            Image.fromarray(image).save(root / split / "images" / f"{name}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{name}.png")
    return root
