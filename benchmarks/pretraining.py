"""What pretraining is worth: epochs, wall time and final mIoU, against random weights.

    python benchmarks/pretraining.py measure --set mni152 --out FILE   every arm, 5 seeds
    python benchmarks/pretraining.py measure --set ROOT --out FILE     on a folder
    python benchmarks/pretraining.py tables --out FILE                 what FILE holds, as tables

An arm is pretrained or random weights, frozen at one of the levels, or frozen whole and thawed
half-way. FILE has one JSON line a run; runs that it holds are not repeated. Seconds are CPU time of
the process, on one thread. --kind resnet --encoder resnet50 --weights imagenet takes torchvision's
where they can be had, --weights FILE any others.

The time that pretraining saves is measured at the score that random weights end with: the seconds
of a pretrained run until it first has that score, against the seconds of the random run of the
same seed until it has its best. Intervals are 95 % of a t distribution over the seeds.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from benchmarks.curves.runs import (  # noqa: E402
    arguments,
    base_config,
    finished,
    follow,
    keep,
    records,
    started,
)
from unetexp.component import override  # noqa: E402
from unetexp.data import open_dataset  # noqa: E402
from unetexp.training.config import TrainConfig, decode_config  # noqa: E402

LEVELS = ("none", "stem", "stage1", "stage2", "stage3", "all")
RANDOM, PRETRAINED = "random", "pretrained"
LOSS = "dice_ce"  # cross-entropy leaves the rare class of MNI152 out in so short a run
History = list[dict[str, float]]


def arms(weights: str, epochs: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, changes) of every arm; `weights` are the pretrained ones."""
    for origin, given in ((PRETRAINED, weights), (RANDOM, "none")):
        for level in LEVELS:
            yield f"{origin}, frozen: {level}", {"encoder.weights": given, "encoder.freeze": level}
        thaw = {"encoder.freeze": "all", "encoder.thaw_epoch": epochs // 2 + 1}
        yield f"{origin}, thawed at epoch {epochs // 2 + 1}", {"encoder.weights": given, **thaw}


def measure(asked: argparse.Namespace) -> None:
    """Do the runs that the file does not hold."""
    torch.set_num_threads(1)
    encoder = {"kind": asked.kind, "name": asked.encoder, "weights": "none"}
    config = base_config(asked.set, asked.epochs, encoder)
    data = open_dataset(config.data)
    place = {"set": asked.set, "epochs": asked.epochs, "encoder": asked.encoder}
    done = finished(asked.out, place)
    for seed, (arm, changes) in itertools.product(
        range(asked.seeds), arms(asked.weights, asked.epochs)
    ):
        if (arm, seed) in done or (asked.arms and arm not in asked.arms):
            continue
        changes = {"loss.kind": LOSS, **changes, "seed": seed}
        changed = decode_config(override(TrainConfig, config.tree(), changes))
        history = follow(changed, data, started(changed, data))
        keep(asked.out, {**place, "arm": arm, "seed": seed, "history": history})


def tables(path: Path) -> None:
    """Print a table for each data set and encoder of the file."""
    found = records(path)
    for place in dict.fromkeys((r["set"], r["encoder"], r["epochs"]) for r in found):
        of_place = [r for r in found if (r["set"], r["encoder"], r["epochs"]) == place]
        runs = {(r["arm"], r["seed"]): r["history"] for r in of_place}
        print(f"\n{Path(place[0]).name}, {place[1]}, {place[2]} epochs\n")
        print("| arm | seeds | best val/miou | in epoch | CPU s | time saved |")
        print("|---|---|---|---|---|---|")
        for arm in dict.fromkeys(r["arm"] for r in of_place):
            print(row(arm, runs))


def row(arm: str, runs: dict[tuple[str, int], History]) -> str:
    """An arm's line: best score, its epoch, CPU seconds, and the time saved to random's score."""
    own = {seed: history for (name, seed), history in runs.items() if name == arm}
    saved = [
        saving(history, runs[other, seed])
        for seed, history in own.items()
        if (other := f"{RANDOM}, frozen: none") != arm and (other, seed) in runs
    ]
    reached = [share for share in saved if share is not None]
    missed = len(saved) - len(reached)
    text = f"{interval([100 * share for share in reached], 0)} %" if reached else ""
    if missed:
        text += f" ({missed} of {len(saved)} never reach it)"
    return (
        f"| {arm} | {len(own)} | {interval([best(h)[0] for h in own.values()], 3)} | "
        f"{statistics.mean(best(h)[1] for h in own.values()):.1f} | "
        f"{statistics.mean(h[-1]['cpu_s'] for h in own.values()):.0f} | {text} |"
    )


def best(history: History) -> tuple[float, int]:
    """The best val/miou and its epoch, from 1."""
    scores = [epoch["val/miou"] for epoch in history]
    return max(scores), scores.index(max(scores)) + 1


def saving(history: History, random: History) -> float | None:
    """The share of the random run's time that a run saves until it is as good; None: never."""
    score, epoch = best(random)
    reached = next((e["cpu_s"] for e in history if e["val/miou"] >= score), None)
    return None if reached is None else 1 - reached / random[epoch - 1]["cpu_s"]


def interval(values: Sequence[float], digits: int) -> str:
    """The mean, with half the width of its 95 % interval."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def main() -> None:
    parser = arguments(__doc__, ["measure", "tables"])
    parser.add_argument("--kind", default="timm", help="the encoder's family")
    parser.add_argument("--encoder", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", default="packaged", help="the pretrained ones, or a file")
    parser.set_defaults(seeds=5, epochs=12)
    asked = parser.parse_args()
    if asked.what == "tables":
        tables(asked.out)
    else:
        measure(asked)


if __name__ == "__main__":
    main()
