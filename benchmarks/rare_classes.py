"""What class weights, the sampler and rare crops are worth on a set with 0.1 % foreground.

    python benchmarks/rare_classes.py run --out FILE     every change alone, 3 seeds
    python benchmarks/rare_classes.py table --out FILE   what FILE holds, as a table

The set is generated: an eighth of the images has one small bright ring, and every image several
discs and bars of the same size and brightness, which are background. FILE has one JSON line a run;
runs that it holds are not repeated. One thread; an EfficientNet-Lite0 with packaged weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from unetexp.data import Dataset, open_dataset  # noqa: E402
from unetexp.training.config import TrainConfig, decode_config  # noqa: E402
from unetexp.training.loop import fit  # noqa: E402
from unetexp.training.state import TrainState  # noqa: E402

SIDE, RADIUS = 96, 5.2  # pixels
IMAGES = {"train": 96, "val": 96}
WITH_OBJECT = 8  # every eighth image
BASE: dict[str, Any] = {
    "encoder": {"kind": "timm", "weights": "packaged"},
    "decoder": {"kind": "slim", "width_factor": 0.5},
    "augment": {"crop_px": 48},
    "loss": {"kind": "dice_ce"},
    "optimizer": {"kind": "adamw", "lr": 3e-3},
    "batch_size": 8,
    "precision": "fp32",
    "memory_format": "contiguous",
    "compile": "none",
}
BASELINE = "no change"
ARMS: dict[str, dict[str, Any]] = {
    BASELINE: {},
    "class_weights: balanced": {"loss.class_weights": "balanced"},
    "class_weights: median_frequency": {"loss.class_weights": "median_frequency"},
    "class_weights: effective_number": {"loss.class_weights": "effective_number"},
    "sampler: rare_classes": {"sampler.kind": "rare_classes"},
    "sampler: rare_classes, power 1": {"sampler.kind": "rare_classes", "sampler.power": 1.0},
    "rare_crop: 0.5": {"augment.rare_crop": 0.5},
}


def shape(kind: str, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A ring, disc or bar in the middle of a tile, turned at random."""
    rows, columns = np.mgrid[-10:11, -10:11]
    distance = np.hypot(rows, columns)
    if kind == "ring":
        return (distance <= RADIUS) & (distance >= RADIUS / 2.6)
    if kind == "disc":
        return distance <= RADIUS * rng.uniform(0.7, 1.1)
    angle = rng.uniform(0, np.pi)
    along, across = (
        rows * np.cos(angle) + columns * np.sin(angle),
        columns * np.cos(angle) - rows * np.sin(angle),
    )
    return (abs(along) <= 1.5 * RADIUS) & (abs(across) <= RADIUS / 3)


def sample(number: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image (H, W, 3) and its mask (H, W)."""
    image = rng.normal(90, 12, (SIDE, SIDE, 3))
    mask = np.zeros((SIDE, SIDE), np.uint8)
    kinds = ["disc", "bar", "disc", "bar"] + ["ring"] * (number % WITH_OBJECT == 0)
    cells = rng.permutation(16)[: len(kinds)]
    for kind, cell in zip(kinds, cells, strict=True):
        row, column = 24 * (cell // 4) + rng.integers(3), 24 * (cell % 4) + rng.integers(3)
        inside = shape(kind, rng)
        place = (slice(row, row + 21), slice(column, column + 21))
        image[place][inside] += rng.uniform(60, 100)
        if kind == "ring":
            mask[place][inside] = 1
    return image.clip(0, 255).astype(np.uint8), mask


def generated(root: Path) -> Dataset:
    """The set, written as a folder and opened."""
    rng = np.random.default_rng(0)
    for split, count in IMAGES.items():
        for folder in ("images", "masks"):
            (root / split / folder).mkdir(parents=True)
        for number in range(count):
            image, mask = sample(number, rng)
            Image.fromarray(image).save(root / split / "images" / f"{number:03d}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{number:03d}.png")
    config = decode_config({"data": {"kind": "folder", "root": str(root)}})
    return open_dataset(config.data)


def train(config: TrainConfig, data: Dataset) -> list[dict[str, float]]:
    """The metrics of each epoch, with the CPU seconds until then."""
    torch.manual_seed(config.seed)
    started, history = time.process_time(), []
    for report in fit(config, data, TrainState(config, data, torch.device("cpu"))):
        history.append({**report.metrics, "cpu_s": time.process_time() - started})
    return history


def records(path: Path) -> list[dict[str, Any]]:
    """The runs that are in the file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def run(asked: argparse.Namespace) -> None:
    """Do the runs that the file does not hold."""
    torch.set_num_threads(1)
    done = {(record["arm"], record["seed"]) for record in records(asked.out)}
    with tempfile.TemporaryDirectory() as folder:
        data = generated(Path(folder) / "set")
        share = data["train"].class_pixels[1] / data["train"].class_pixels.sum()
        print(f"foreground: {share:.3%} of the training pixels", flush=True)
        for seed in range(asked.seeds):
            for arm, changes in ARMS.items():
                if (arm, seed) in done or (asked.arms and arm not in asked.arms):
                    continue
                lengths = {"epochs": asked.epochs, "min_steps": asked.steps, "seed": seed}
                history = train(decode_config({**BASE, **lengths}, changes), data)
                record = {"arm": arm, **lengths, "share": share, "history": history}
                with asked.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
                scores = " ".join(f"{epoch['val/iou/1']:.3f}" for epoch in history)
                print(f"{arm}, seed {seed}: {scores} ({history[-1]['cpu_s']:.0f} s)", flush=True)


def table(asked: argparse.Namespace) -> None:
    """The rare class's IoU after the last epoch: mean over the seeds, and each seed's."""
    kept = records(asked.out)
    print("| change | IoU of the rare class, mean | each seed | CPU s a run |\n|---|---|---|---|")
    for arm in ARMS:
        runs = [record["history"][-1] for record in kept if record["arm"] == arm]
        if runs:
            scores = [last["val/iou/1"] for last in runs]
            seconds = statistics.mean(last["cpu_s"] for last in runs)
            each = ", ".join(f"{score:.3f}" for score in scores)
            print(f"| {arm} | {statistics.mean(scores):.3f} | {each} | {seconds:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--out", type=Path, default=Path("rare-classes.jsonl"), help="the runs")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=120, help="of an epoch")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="*", help="these alone, by the names in the table")
    asked = parser.parse_args()
    {"run": run, "table": table}[asked.what](asked)


if __name__ == "__main__":
    main()
