"""Training runs of a benchmark, kept in a file of one JSON line a run."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
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


def epochs_of(config: TrainConfig, data: Dataset, state: TrainState) -> Iterator[dict[str, float]]:
    """Train; the metrics of each epoch, with the CPU and wall seconds until then."""
    started, wall = time.process_time(), time.perf_counter()
    for report in fit(config, data, state):
        spent = {"cpu_s": time.process_time() - started, "wall_s": time.perf_counter() - wall}
        yield {**report.metrics, **spent}


def follow(config: TrainConfig, data: Dataset, state: TrainState) -> list[dict[str, float]]:
    """The epochs of a whole training."""
    return list(epochs_of(config, data, state))


def started(config: TrainConfig, data: Dataset) -> TrainState:
    """A run before its first epoch, on the CPU."""
    return TrainState(config, data, torch.device("cpu"))


def records(path: Path) -> list[dict[str, Any]]:
    """The runs that are in the file, without a line that was cut short."""
    whole = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in whole.split(b"\n")[:-1]]


def append(path: Path, record: dict[str, Any]) -> None:
    """Add a line to the file, in place of one that was cut short when its writer was killed."""
    with path.open("a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(json.dumps(record).encode() + b"\n")


def finished(path: Path, place: dict[str, Any]) -> set[tuple[str, int]]:
    """(arm, seed) of the runs in the file that have what `place` says: its set, epochs, ..."""
    return {
        (record["arm"], record["seed"])
        for record in records(path)
        if place.items() <= record.items()
    }


def keep(path: Path, record: dict[str, Any]) -> None:
    """Add a run to the file and print its curve."""
    append(path, record)
    scores = " ".join(f"{epoch['val/miou']:.3f}" for epoch in record["history"])
    print(f"{record['arm']} seed {record['seed']}: {scores}", flush=True)
