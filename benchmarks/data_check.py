"""How long `unetexp data check` takes: `python -m benchmarks.data_check --pairs 10000`.

Generated pairs of 512 x 512 pixels (JPEG images, PNG masks) with planted copies; they are deleted
afterwards. Prints the seconds of wall clock and of processor time, and the copies that were found.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from unetexp.data import Folder
from unetexp.data.checks.checked import check_source

SIDE_PX = 512
_GROUNDS = 24
_COPIES = 50


def grounds(rng: np.random.Generator) -> list[np.ndarray]:
    """Rough grey pictures of twice the side, from which pairs are cut and mixed."""
    size = (2 * SIDE_PX, 2 * SIDE_PX)
    found = []
    for _ in range(_GROUNDS):
        layers = [ndimage.gaussian_filter(rng.normal(size=size), s) * s for s in (2, 8, 30)]
        mixed = sum(layers)
        found.append((mixed / mixed.std()).astype(np.float32))
    return found


def pairs(count: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images (H, W, 3) and masks (H, W) of three classes."""
    rng = np.random.default_rng(seed)
    pool = grounds(rng)
    for _ in range(count):
        first, second = (_cut(pool[rng.integers(_GROUNDS)], rng) for _ in range(2))
        mixed = first + second
        grey = (120 + 30 * mixed).clip(0, 255).astype(np.uint8)
        image = np.stack([grey, np.roll(grey, 1, 0), 255 - grey], axis=-1)
        yield image, (mixed > 1.2).astype(np.uint8) + (mixed > 2.4)


def write(root: Path, count: int) -> None:
    """Write the pairs, a tenth of them into val, with copies of train among those."""
    for split in ("train", "val"):
        for folder in ("images", "masks"):
            (root / split / folder).mkdir(parents=True)
    kept = []
    for number, (image, mask) in enumerate(pairs(count - _COPIES)):
        split = "val" if number % 10 == 9 else "train"
        _save(root / split, f"{number:06d}x", image, mask)
        if split == "train" and len(kept) < _COPIES:
            kept.append((image, mask))
    turns = (lambda a: a[:, ::-1], lambda a: np.rot90(a), lambda a: a[20:490, 30:500], lambda a: a)
    for number, (image, mask) in enumerate(kept):
        turn = turns[number % len(turns)]
        _save(root / "val", f"copy{number:06d}x", turn(image), turn(mask))


def _cut(ground: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    top, left = rng.integers(SIDE_PX, size=2)
    part = ground[top : top + SIDE_PX, left : left + SIDE_PX]
    return part[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]


def _save(folder: Path, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    Image.fromarray(np.ascontiguousarray(image)).save(folder / f"images/{name}.jpg", quality=90)
    Image.fromarray(np.ascontiguousarray(mask)).save(folder / f"masks/{name}.png")


def main() -> None:
    """Generate, check, tell, delete."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10_000)
    count = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), count)
        wall, processor = time.perf_counter(), time.process_time()
        checked = check_source(Folder(root=folder))
        told = {
            "pairs": len(checked.samples),
            "wall_s": round(time.perf_counter() - wall, 1),
            "processor_s": round(time.process_time() - processor, 1),
            "copies_planted": _COPIES,
            "findings": {f.code: dict(f.numbers) for f in checked.findings},
        }
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
