"""A table of learning curves from a formula, in the form of recorded ones."""

from __future__ import annotations

import itertools
import math

import numpy as np

from benchmarks.curves.curve_table import Curves, curves_of
from benchmarks.curves.plan import drawn, experiment_of, recipe_of

NOISE = 0.004
SECONDS = {"resnet": 4.0, "timm": 2.0}


def true_curve(values: dict, epochs: int) -> np.ndarray:
    """(E,): rises to a level that depends on the values, the slower the less is frozen."""
    frozen = ["none", "stem", "stage1", "stage2", "stage3", "all"].index(values["encoder.freeze"])
    away = math.log10(values["optimizer.lr"]) + 3
    level = 0.8 - 0.1 * away**2 - 0.02 * frozen - 0.05 * (values["encoder.kind"] == "resnet")
    speed = 0.15 + 0.05 * frozen
    return level * (1 - np.exp(-speed * np.arange(1, epochs + 1)))


def drawn_curves(
    configs: int = 96, epochs: int = 27, seeds: int = 3, sets: tuple[str, ...] = ("drawn",)
) -> Curves:
    """Curves of the recorder's first configurations, each third one with several seeds.

    Sets differ by nothing but noise.
    """
    recipe, rng = recipe_of("mni152", {}), np.random.default_rng(0)
    records = []
    for of_set, (config, values) in itertools.product(sets, enumerate(drawn(recipe, configs))):
        each = SECONDS[values["encoder.kind"]]
        for seed in range(seeds if config % 3 == 0 else 1):
            scores = true_curve(values, epochs) + rng.normal(0, NOISE, epochs)
            history = [
                {"val/miou": float(score), "cpu_s": each * n, "wall_s": each * n}
                for n, score in enumerate(scores, start=1)
            ]
            record = {"set": of_set, "config": config, "seed": seed, "values": values}
            origin = {**experiment_of(recipe), "epochs": epochs, "command": "none"}
            more = {"machine": "none", "versions": {}, "at": "2026-01-01", "history": history}
            records.append({**record, **origin, **more})
    return curves_of(records)
