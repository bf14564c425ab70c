"""Whether the limit of the search's memory costs quality: long simulated sweeps with and without.

    python benchmarks/scaling/search_memory.py              20 seeds of 1,000 trials, ~6 minutes

Trials run one at a time with a simulated score over the space of the `folder` recipe: settings
interact, and the noise is that between two seeds of a real trial.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import optuna
from scipy import stats

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from sweeps.config.loading import load_recipe  # noqa: E402
from sweeps.search.bounded_storage import BoundedStorage  # noqa: E402
from sweeps.search.controller import SweepController  # noqa: E402
from sweeps.state.ledger import Ledger  # noqa: E402

NOISE = 0.01  # standard deviation of the score of one config
ARMS = {"all trials": optuna.storages.InMemoryStorage, "limited": BoundedStorage}


def quality(values: dict) -> float:
    """The score of a config without its noise, at most 0.8."""
    frozen = ["none", "stem", "stage1", "stage2", "stage3", "all"].index(values["encoder.freeze"])
    best_lr = 4e-4 * 1.5**frozen  # with more frozen, a higher rate is best
    away = math.log10(values["optimizer.lr"] / best_lr)
    losses = {"focal": 0.04 * abs(values.get("loss.gamma", 0) - 2.2), "cross_entropy": 0.05}
    loss = losses.get(values["loss.kind"], 0.03)
    upsampling = 0.02 * (values["decoder.upsampling"] != "pixel_shuffle")
    return 0.8 - 0.15 * away**2 - 0.02 * abs(frozen - 2) - loss - upsampling


def search(arm: str, seed: int, trials: int, folder: Path) -> tuple[float, float, float]:
    """Quality of the trial that scored best, mean quality of the last hundred, and seconds."""
    recipe = load_recipe("folder", {"data.root": "unused", "budget.trials": trials, "epochs": 1})
    controller = SweepController(recipe, seed, Ledger(folder / f"{arm}-{seed}.jsonl"), [])
    # This drops the recipe's first points with the old study; they would help both arms.
    controller.study = optuna.create_study(storage=ARMS[arm](), direction="maximize")
    noise = np.random.default_rng(seed)
    found = []
    start = time.process_time()
    while trial := controller.propose():
        true = quality(trial.values)
        score = true + noise.normal(0, NOISE)
        found.append((score, true))
        controller.epoch_finished(trial.id, {"epoch": 1, "val/miou": score})
        controller.trial_ended(trial.id, "completed")
    spent = time.process_time() - start
    return max(found)[1], float(np.mean([true for _, true in found[-100:]])), spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        runs = np.array(
            [
                [search(arm, seed, options.trials, Path(scratch)) for arm in ARMS]
                for seed in range(options.seeds)
            ]
        )
    print(f"| {options.seeds} seeds | {' | '.join(ARMS)} | difference | 95 % interval |")
    print("|---|---|---|---|---|")
    for index, what in enumerate(("best trial", "mean of the last hundred", "s of CPU")):
        full, limited = runs[:, 0, index], runs[:, 1, index]
        change = limited - full
        low, high = stats.bootstrap(
            (change,), np.mean, method="percentile", rng=0
        ).confidence_interval
        means = f"{full.mean():.4f} | {limited.mean():.4f} | {change.mean():+.4f}"
        print(f"| {what} | {means} | {low:+.4f} to {high:+.4f} |")


if __name__ == "__main__":
    main()
