"""Training runs of a benchmark, kept in a file of one JSON line a run."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from sweeps.config.loading import load_recipe
from unetexp.data import Dataset
from unetexp.training.config import TrainConfig, decode_config
from unetexp.training.loop import fit
from unetexp.training.state import TrainState

SIDE_PX = 96


def arguments(description: str, what: list[str]) -> argparse.ArgumentParser:
    """The options that every such benchmark has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=what)
    parser.add_argument("--out", type=Path, default=Path("runs.jsonl"), help="the file of the runs")
    parser.add_argument("--set", default="mni152", help="mni152, or the folder of a data set")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="*", help="these alone, by the names in the tables")
    return parser


def base_config(root: str, epochs: int, encoder: dict[str, Any]) -> TrainConfig:
    """The quickstart's experiment on the set, with the encoder and epochs that were asked for."""
    data: dict[str, Any] = {"kind": "folder", "root": root}
    if root == "mni152":
        data = {"kind": "mni152", "downsample": 2}
    recipe = load_recipe("quickstart", {})
    tree = {**recipe.base.tree(), "data": data, "epochs": epochs, "encoder": encoder}
    return decode_config(tree, {"precision": "fp32", "augment.crop_px": SIDE_PX})


def follow(config: TrainConfig, data: Dataset, state: TrainState) -> list[dict[str, float]]:
    """Train; the metrics of each epoch, with the CPU seconds until then."""
    started, history = time.process_time(), []
    for report in fit(config, data, state):
        history.append({**report.metrics, "cpu_s": time.process_time() - started})
    return history


def started(config: TrainConfig, data: Dataset) -> TrainState:
    """A run before its first epoch, on the CPU."""
    return TrainState(config, data, torch.device("cpu"))


def records(path: Path) -> list[dict[str, Any]]:
    """The runs that are in the file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def keep(path: Path, record: dict[str, Any]) -> None:
    """Add a run to the file and print its curve."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    scores = " ".join(f"{epoch['val/miou']:.3f}" for epoch in record["history"])
    print(f"{record['arm']} seed {record['seed']}: {scores}", flush=True)
