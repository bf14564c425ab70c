"""Finished sweeps with a planted effect, for the report and the browser that shows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from sweeps.config.goals import USUAL
from sweeps.tracking.tracker import Tracker
from unetexp.data import Sample
from unetexp.training.pictures import overlay_grid

RECIPE = """
space:
  encoder.freeze: {kind: choice, values: [none, all]}
  decoder.upsampling: {kind: choice, values: [bilinear, nearest, pixel_shuffle]}
  loss.kind: {kind: choice, values: [dice, focal]}
  loss.gamma: {kind: uniform, low: 1.0, high: 3.0, when: {loss.kind: focal}}
  optimizer.lr: {kind: loguniform, low: 1.0e-4, high: 1.0e-2}
"""


def write_sweep(
    store, name, trials, *, recipe=RECIPE, classes=("cell",), picture=None, goals=USUAL
):
    """A sweep of `trials`: dicts with params, curve, reason and optionally cost, latency.

    The curve is of the val/miou and the classes' IoU; val/dice lies 0.1 above.
    """
    tracker = Tracker(store)
    data = {"classes": ["background", *classes], "splits": {"val": {"images": 6}}}
    tracker.start_sweep(
        name,
        storage="/nowhere",
        params={"recipe": "made", "seed": 0, "epochs": 3},
        artifacts={"recipe.yaml": recipe, "data.json": json.dumps(data)},
        goals=goals,
    )
    for number, trial in enumerate(trials):
        key = f"{number:04d}"
        tracker.start_trial(key, f"{name}-{key}", {"epochs": 3, **trial["params"]})
        for epoch, score in enumerate(trial["curve"], start=1):
            values = {"val/miou": score, **{f"val/iou/{c}": score for c in classes}}
            if goals != USUAL:
                values["val/dice"] = score + 0.1
            if epoch == 1:
                latency = trial.get("latency", 10.0 + number)
                values |= {"time/latency_ms": latency, "model/parameters": 1e6 + number}
            tracker.log_epoch(key, epoch, values, at_s=1.7e9 + 60 * number + epoch)
        tracker.log_cost(key, trial.get("cost", 60.0), 1.7e9)
        if picture is not None and trial["reason"] == "completed":
            for sheet in picture:
                tracker.log_artifacts(key, sheet)
        tracker.end_trial(key, trial["reason"])
    tracker.end_sweep("completed")


def planted(count=32, cost=0.06, seed=0):
    """Trials of which frozen ones score `cost` less, and nothing else matters."""
    rng = np.random.default_rng(seed)
    trials = []
    for number in range(count):
        frozen, focal = number % 2 == 0, number % 4 < 2
        params = {
            "encoder.freeze": "all" if frozen else "none",
            "decoder.upsampling": ("bilinear", "nearest", "pixel_shuffle")[number % 3],
            "loss.kind": "focal" if focal else "dice",
            "optimizer.lr": 10 ** rng.uniform(-4, -2),
        }
        if focal:
            params["loss.gamma"] = rng.uniform(1, 3)
        score = 0.6 - cost * frozen + rng.normal(0, 0.015)
        full = number % 3 == 0
        curve = [score - 0.1, score, score + 0.05, score + 0.06][: 3 if full else 2]
        trials.append({"params": params, "curve": curve, "reason": "completed" if full else "asha"})
    trials[-1] = {**trials[-1], "curve": [0.5], "reason": "nan"}
    trials[-2] = {**trials[-2], "curve": [], "reason": "oom"}
    return trials


class _Data:
    """The parts of a data set that an overlay needs: two white images, which no cut may trim."""

    def __init__(self):
        image = torch.full((1, 30, 20), 255, dtype=torch.uint8)
        mask = torch.zeros(30, 20, dtype=torch.uint8)
        mask[:10] = 1
        self.class_names, self.image_max = ("background", "cell"), 255
        self.split = [Sample(f"image-{i}", image, mask) for i in range(2)]

    def __getitem__(self, split):
        return self.split


def write_sheets(folder: Path) -> list[Path]:
    """The overlay sheets that a trial writes."""
    data = _Data()
    wrong = torch.ones(30, 20, dtype=torch.int64)
    paths = [folder / "overlay.png", folder / "worst.png"]
    for path in paths:
        overlay_grid(data, {0: wrong, 1: wrong}).save(path)
    return paths
