"""How well the ranking of suspected label noise finds wrong masks.

`python -m benchmarks.label_noise --nuclei FOLDER`; takes minutes on one core.

A small model is trained on the training split of the nuclei as they are. Then a tenth of the
held-out masks is shifted, swapped with another image's, or emptied, and the AUROC of the ranking is
printed, the mean over several draws of the tenth, for each fault and for all three mixed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from unetexp.compute.device import limit_threads
from unetexp.data import Folder, open_dataset
from unetexp.inference.evaluation import samples_of
from unetexp.inference.label_noise import doubt_of
from unetexp.inference.predictor import Predictor
from unetexp.models.saved_model import load, read_spec
from unetexp.training.config import decode_config
from unetexp.training.experiment import BEST, Experiment

NUCLEI = Path("../shared/data/nuclei")
KINDS = ("shifted", "swapped", "dropped")
_DRAWS = 10


def trained(root: Path, folder: Path, epochs: int) -> Path:
    """A small model of the nuclei; its folder."""
    tree = {
        "data": {"kind": "folder", "root": str(root)},
        "encoder": {"kind": "timm", "name": "tf_efficientnet_lite0", "weights": "packaged"},
        "epochs": epochs,
        "augment": {"crop_px": 128},
    }
    config = decode_config(tree, {})
    experiment = Experiment(config, open_dataset(config.data), folder, torch.device("cpu"))
    for report in experiment.run(0):
        print(f"epoch {report.epoch}: val/miou {report.metrics['val/miou']:.3f}", flush=True)
    return folder / BEST


def spoilt(masks: list[np.ndarray], number: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    """The mask of an image with a fault of that kind."""
    mask = masks[number]
    if kind == "dropped":
        labels, counts = np.unique(mask, return_counts=True)
        return np.full_like(mask, labels[counts.argmax()])
    if kind == "shifted":
        by = rng.integers(10, 25, 2) * rng.choice([-1, 1], 2)
        return np.roll(mask, tuple(by.tolist()), (0, 1))
    alike = [i for i in range(len(masks)) if i != number and masks[i].shape == mask.shape]
    return masks[int(rng.choice(alike))] if alike else mask.T[: mask.shape[0], : mask.shape[1]]


def aurocs(folder: Path, root: Path) -> dict[str, float]:
    """By kind of fault, the mean AUROC."""
    spec = read_spec(folder)
    predictor = Predictor(load(folder), spec, torch.device("cpu"))
    data = open_dataset(Folder(root=str(root)))
    samples = [s for split in ("val", "test") for s in _all(samples_of(data, split, spec))]
    seen = [predictor.probabilities(sample.image).numpy() for sample in samples]
    masks = [sample.mask.numpy() for sample in samples]
    clean = np.array([doubt_of(p, m)[0] for p, m in zip(seen, masks, strict=True)])
    found: dict[str, list[float]] = {kind: [] for kind in (*KINDS, "mixed")}
    filled = [i for i, mask in enumerate(masks) if len(np.unique(mask)) > 1]
    for draw in range(_DRAWS):
        rng = np.random.default_rng(draw)
        wrong = rng.choice(filled, max(3, len(masks) // 10), replace=False)
        for kind in found:
            scores = clean.copy()
            for place, number in enumerate(wrong.tolist()):
                fault = KINDS[place % len(KINDS)] if kind == "mixed" else kind
                scores[number] = doubt_of(seen[number], spoilt(masks, number, fault, rng))[0]
            found[kind].append(roc_auc_score(np.isin(np.arange(len(masks)), wrong), scores))
    return {kind: round(float(np.mean(values)), 3) for kind, values in found.items()}


def _all(samples):
    return [samples[index] for index in range(len(samples))]


def main() -> None:
    """Train, spoil, rank, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nuclei", type=Path, default=NUCLEI)
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    limit_threads()
    with tempfile.TemporaryDirectory() as place:
        folder = trained(options.nuclei, Path(place) / "run", options.epochs)
        print(json.dumps(aurocs(folder, options.nuclei), indent=2))


if __name__ == "__main__":
    main()
