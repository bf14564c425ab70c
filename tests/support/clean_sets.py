"""Data folders without any fault, of drawn sizes, classes, counts and formats."""

from dataclasses import dataclass

import numpy as np
import tifffile
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

IMAGES = {  # format -> how the pixels (H, W, 3) uint8 are stored
    "RGB .png": lambda rgb: rgb,
    "grey .png": lambda rgb: rgb[..., 0],
    "16-bit .png": lambda rgb: (rgb[..., 0].astype(np.uint16) << 8) + rgb[..., 1],
    "RGB .tif": lambda rgb: rgb,
    "float .tif": lambda rgb: (rgb[..., 0] / 255).astype(np.float32),
    "five bands .tif": lambda rgb: np.dstack([rgb, 255 - rgb[..., :2]]),
    "RGB .bmp": lambda rgb: rgb,
    "RGB .webp": lambda rgb: rgb,
    "RGB .jpg": lambda rgb: rgb,
}
MASKS = (".png", ".tif", ".bmp", "palette .png", "black and white .png", "colours .png")
_COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)


@dataclass(frozen=True)
class CleanSet:
    """What is written."""

    height: int
    width: int
    classes: int
    splits: dict[str, int]  # images of each; "": without folders of splits
    image: str
    mask: str
    seed: int

    def write(self, root):
        """Write ROOT/<split>/{images,masks}/NAME; returns the root."""
        rng = np.random.default_rng(self.seed)
        for split, count in self.splits.items():
            for _ in range(count):
                pixels, mask = _pair(rng, self.height, self.width, self.classes)
                name = "".join(rng.choice(list("bcdfghjk"), 12))
                _save(root / split / "images" / name, self.image, IMAGES[self.image](pixels))
                _save(root / split / "masks" / name, self.mask, self._stored(mask))
        return root

    def _stored(self, mask):
        if self.mask.startswith("black"):
            return mask * np.uint8(255)
        return _COLOURS[mask] if self.mask.startswith("colours") else mask


@st.composite
def clean_sets(draw):
    """Any of them."""
    mask = draw(st.sampled_from(MASKS))
    given = draw(st.booleans())
    counts = st.integers(3, 8)
    splits = {"train": draw(counts), "val": draw(counts)} if given else {"": draw(counts) + 5}
    if given and draw(st.booleans()):
        splits["test"] = draw(counts)
    return CleanSet(
        height=draw(st.integers(40, 96)),
        width=draw(st.integers(40, 96)),
        classes=2 if mask.startswith("black") else draw(st.integers(2, 4)),
        splits=splits,
        image=draw(st.sampled_from(sorted(IMAGES))),
        mask=mask,
        seed=draw(st.integers(0, 2**16)),
    )


def _pair(rng, height, width, classes):
    """An image (H, W, 3) with a texture of its own, and a mask (H, W) of discs in its corners."""
    size = (height, width)
    ground = sum(
        ndimage.gaussian_filter(rng.normal(size=size), sigma) * sigma for sigma in (1, 3, 8)
    )
    rows, columns = np.mgrid[:height, :width]
    mask = np.zeros(size, np.uint8)
    for label in range(1, classes):
        row, column = divmod(label, 2)
        y = (0.28 + 0.44 * row + rng.uniform(-0.05, 0.05)) * height
        x = (0.28 + 0.44 * column + rng.uniform(-0.05, 0.05)) * width
        mask[(rows - y) ** 2 + (columns - x) ** 2 < (rng.uniform(0.15, 0.2) * min(size)) ** 2] = (
            label
        )
    grey = 70 + 40 * mask + 30 * ground / ground.std()
    pixels = grey[..., None] + rng.uniform(-20, 20, 3) + rng.normal(0, 3, (*size, 3))
    return pixels.clip(1, 254).astype(np.uint8), mask


def _save(place, form, array):
    path = place.with_name(place.name + form.split()[-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric=_photometric(array))
        return
    image = Image.fromarray(array)
    if form.startswith("palette"):
        image.putpalette(_COLOURS.tobytes())
    options = {".webp": {"lossless": True}, ".jpg": {"quality": 95}}.get(path.suffix, {})
    image.save(path, **options)


def _photometric(array):
    return "rgb" if array.ndim == 3 and array.shape[2] == 3 else "minisblack"
