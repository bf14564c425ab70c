"""How a trial learns: what each default is worth, and how steady the curves are.

    python benchmarks/learning.py defaults --out FILE   every default undone, one at a time, 3 seeds
    python benchmarks/learning.py curves --out FILE     20 random trials, with the defaults of now
                                                        and with those of before
    python benchmarks/learning.py tables --out FILE     what FILE holds, as tables
    python benchmarks/learning.py plot --out FILE --to curves.png

FILE has one JSON line a run; runs that it holds are not repeated. --set mni152 (the quickstart's
slices, 91 for training) or --set PATH (a folder); --encoder resnet18 keeps it to minutes a table.
The peer is a plain loop over segmentation_models_pytorch (pip install -e '.[bench]'): AdamW with a
constant rate and no augmentation.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from benchmarks.peers.plain_loop import plain_loop  # noqa: E402
from benchmarks.peers.unets import HOW_TO_INSTALL, SMP, smp_version  # noqa: E402
from sweeps.config.loading import load_recipe  # noqa: E402
from sweeps.config.space import suggest  # noqa: E402
from unetexp.component import override  # noqa: E402
from unetexp.data import Dataset, open_dataset  # noqa: E402
from unetexp.training.config import TrainConfig, decode_config  # noqa: E402
from unetexp.training.loop import fit  # noqa: E402
from unetexp.training.state import TrainState  # noqa: E402

BEFORE = {
    "optimizer.head_lr_scale": 1.0,
    "schedule.hold": 0.0,
    "schedule.warmup_epochs": 1.0,
    "batch_norm_images": 0,
    "ema_epochs": None,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "optimizer.head_lr_scale: 1": {"optimizer.head_lr_scale": 1.0},
    "optimizer.head_lr_scale: 10": {"optimizer.head_lr_scale": 10.0},
    "optimizer.head_lr_scale: 100": {"optimizer.head_lr_scale": 100.0},
    "schedule.hold: 0": {"schedule.hold": 0.0},
    "schedule.kind: constant": {"schedule": {"kind": "constant"}},
    "schedule.warmup: 0": {"schedule.warmup": 0.0},
    "schedule.warmup_epochs: 1": {"schedule.warmup_epochs": 1.0},
    "batch_norm_images: 0": {"batch_norm_images": 0},
    "batch_norm_images: 128": {"batch_norm_images": 128},
    "ema_epochs: null": {"ema_epochs": None},
    "ema_epochs: 2": {"ema_epochs": 2.0},
    "clip_norm: null": {"clip_norm": None},
    "optimizer.weight_decay: 1e-2": {"optimizer.weight_decay": 1e-2},
    "no augmentation": {
        "augment": {"crop_px": 96, "zoom_min": 1, "zoom_max": 1, "hflip": 0, "rotation_deg": 0}
        | {"brightness": 0, "contrast": 0}
    },
    "all as before": BEFORE,
}
PEER = "plain loop, smp"


def base_config(asked: argparse.Namespace) -> TrainConfig:
    """The quickstart's experiment on the set, with the encoder and epochs that were asked for."""
    data: dict[str, Any] = {"kind": "folder", "root": asked.set}
    if asked.set == "mni152":
        data = {"kind": "mni152", "downsample": 2}
    recipe = load_recipe("quickstart", {})
    tree = {**recipe.base.tree(), "data": data, "epochs": asked.epochs}
    tree["encoder"] = {"name": asked.encoder, "weights": "none"}
    return decode_config(tree, {"precision": "fp32", "augment.crop_px": 96})


def random_values(trials: int) -> list[dict[str, Any]]:
    """Points of the quickstart's space, the same in every call."""
    recipe = load_recipe("quickstart", {})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [suggest(recipe.space, study.ask(), recipe.fixed_values()) for _ in range(trials)]


def runs(asked: argparse.Namespace) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(arm, seed, changes) of every run of the table."""
    if asked.what == "defaults":
        for seed, arm in itertools.product(range(asked.seeds), [*DEFAULTS, PEER]):
            yield arm, seed, DEFAULTS.get(arm, {})
        return
    for number, values in enumerate(random_values(asked.trials)):
        yield "now", number, values
        yield "not averaged", number, {**values, "ema_epochs": None}
        yield "before", number, {**values, **BEFORE}


def train(config: TrainConfig, data: Dataset) -> list[dict[str, float]]:
    """The metrics of each epoch, with the CPU seconds until then."""
    started, history = time.process_time(), []
    for report in fit(config, data, TrainState(config, data, torch.device("cpu"))):
        history.append({**report.metrics, "cpu_s": time.process_time() - started})
    return history


def measure(asked: argparse.Namespace) -> None:
    """Do the runs that the file does not hold."""
    torch.set_num_threads(1)
    config = base_config(asked)
    data = open_dataset(config.data)
    done = {(r["set"], r["epochs"], r["encoder"], r["arm"], r["seed"]) for r in records(asked.out)}
    place = (asked.set, asked.epochs, asked.encoder)
    for arm, seed, changes in runs(asked):
        if (*place, arm, seed) in done or (asked.arms and arm not in asked.arms):
            continue
        if arm == PEER and smp_version() is None:
            print(f"{arm}: left out, {SMP} is not installed ({HOW_TO_INSTALL})")
            continue
        changed = decode_config(override(TrainConfig, config.tree(), {**changes, "seed": seed}))
        trained = plain_loop if arm == PEER else train
        record = {"set": asked.set, "epochs": asked.epochs, "encoder": asked.encoder}
        record |= {"what": asked.what, "arm": arm, "seed": seed, "changes": changes}
        record["history"] = trained(changed, data)
        with asked.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        scores = " ".join(f"{epoch['val/miou']:.3f}" for epoch in record["history"])
        print(f"{arm} seed {seed}: {scores}", flush=True)


def records(path: Path) -> list[dict[str, Any]]:
    """The runs that are in the file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def groups(found: list[dict[str, Any]]) -> dict[tuple, dict[str, list[list[float]]]]:
    """(table, set, encoder, epochs) -> arm -> the curves of val/miou."""
    tables: dict[tuple, dict[str, list[list[float]]]] = {}
    for record in found:
        key = (record["what"], Path(record["set"]).name, record["encoder"], record["epochs"])
        curve = [epoch["val/miou"] for epoch in record["history"]]
        tables.setdefault(key, {}).setdefault(record["arm"], []).append(curve)
    return tables


def tables(path: Path) -> None:
    """Print what the file holds."""
    for (what, name, encoder, epochs), arms in groups(records(path)).items():
        print(f"\n{what}, {name}, {encoder}, {epochs} epochs\n")
        (defaults_table if what == "defaults" else curves_table)(arms, epochs)


def defaults_table(arms: dict[str, list[list[float]]], epochs: int) -> None:
    """Mean val/miou over the seeds: half-way, at the end, and the end's spread."""
    print("| changed | half-way | end | lowest to highest | largest fall |\n|---|---|---|---|---|")
    for arm, curves in arms.items():
        half = statistics.mean(curve[epochs // 2 - 1] for curve in curves)
        ends = [curve[-1] for curve in curves]
        print(
            f"| {arm} | {half:.3f} | {statistics.mean(ends):.3f} | "
            f"{min(ends):.3f} to {max(ends):.3f} | {max(map(fall, curves)):.3f} |"
        )


def curves_table(arms: dict[str, list[list[float]]], epochs: int) -> None:
    """How well the value at the rung tells the end (Spearman), and how far curves fall after it."""
    rung = -(-epochs // 3)
    print(
        "| arm | trials | best | rank correlation, rung and end: value at the rung | best so far |"
    )
    print("|---|---|---|---|---|")
    for arm, curves in arms.items():
        whole = [curve for curve in curves if len(curve) == epochs]
        ends = [statistics.mean(curve[-2:]) for curve in whole]
        last, best = ([f(c[:rung]) for c in whole] for f in (lambda c: c[-1], max))
        print(
            f"| {arm} | {len(whole)} | {max(map(max, whole)):.3f} | {rank(last, ends):.2f} | "
            f"{rank(best, ends):.2f} |"
        )
    print("\n| arm | largest fall from the rung on | epochs that fall by more than 0.1 |")
    print("|---|---|---|")
    for arm, curves in arms.items():
        falls = [value for curve in curves for value in falls_from(curve, rung)]
        print(f"| {arm} | {max(falls):.3f} | {sum(f > 0.1 for f in falls)} of {len(falls)} |")


def rank(a: list[float], b: list[float]) -> float:
    return float(stats.spearmanr(a, b).statistic) if len(a) > 2 else float("nan")


def falls_from(curve: list[float], rung: int) -> list[float]:
    """How far each epoch from the rung on is below the best before it."""
    best = np.maximum.accumulate(curve)
    return [float(best[i - 1] - curve[i]) for i in range(max(rung - 1, 1), len(curve))]


def fall(curve: list[float]) -> float:
    """The largest fall below the best before, from a third of the epochs on."""
    return max(falls_from(curve, -(-len(curve) // 3)))


def plot(path: Path, target: Path) -> None:
    """The curves of before and of now, side by side."""
    from matplotlib.figure import Figure

    found = {key: arms for key, arms in groups(records(path)).items() if key[0] == "curves"}
    figure = Figure(figsize=(9, 3.2 * len(found)), layout="constrained")
    axes = figure.subplots(len(found), 2, sharey="row", squeeze=False)
    for row, ((_, name, encoder, epochs), arms) in zip(axes, found.items(), strict=True):
        for axis, arm in zip(row, ("before", "now"), strict=True):
            for curve in arms.get(arm, []):
                axis.plot(range(1, epochs + 1), curve, linewidth=1)
            axis.set(title=f"{name}, {encoder}: {arm}", xlabel="epoch", ylabel="val/miou")
            axis.grid(alpha=0.3)
    figure.savefig(target, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["defaults", "curves", "tables", "plot"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--to", type=Path, default=Path("curves.png"))
    parser.add_argument("--set", default="mni152")
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--arms", nargs="*", help="these alone, by the names in the tables")
    asked = parser.parse_args()
    if asked.what == "tables":
        tables(asked.out)
    elif asked.what == "plot":
        plot(asked.out, asked.to)
    else:
        measure(asked)


if __name__ == "__main__":
    main()
