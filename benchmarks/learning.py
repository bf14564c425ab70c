"""How a trial learns: what each default is worth, and how steady the curves are.

    python benchmarks/learning.py defaults --out FILE   every default undone, one at a time, 3 seeds
    python benchmarks/learning.py curves --out FILE     20 random trials, with the defaults of now
                                                        and with those of before
    python benchmarks/learning.py tables --out FILE     what FILE holds, as tables
    python benchmarks/learning.py plot --out FILE --to curves.png

    python benchmarks/learning.py cut --set ROOT --to FOLDER   a small set: one 96 px crop an image

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
from PIL import Image
from scipy import stats
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from benchmarks.peers.plain_loop import plain_loop  # noqa: E402
from benchmarks.peers.unets import HOW_TO_INSTALL, SMP, smp_version  # noqa: E402
from sweeps.config.loading import load_recipe  # noqa: E402
from sweeps.config.space import suggest  # noqa: E402
from unetexp.component import override  # noqa: E402
from unetexp.data import Dataset, open_dataset  # noqa: E402
from unetexp.models.unet import UNet  # noqa: E402
from unetexp.training.averaging import AveragedWeights  # noqa: E402
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
INITIALISED = "decoder and head initialised as the peer's"
SIDE_PX = 96


def base_config(asked: argparse.Namespace) -> TrainConfig:
    """The quickstart's experiment on the set, with the encoder and epochs that were asked for."""
    data: dict[str, Any] = {"kind": "folder", "root": asked.set}
    if asked.set == "mni152":
        data = {"kind": "mni152", "downsample": 2}
    recipe = load_recipe("quickstart", {})
    tree = {**recipe.base.tree(), "data": data, "epochs": asked.epochs}
    tree["encoder"] = {"name": asked.encoder, "weights": "none"}
    return decode_config(tree, {"precision": "fp32", "augment.crop_px": SIDE_PX})


def random_values(trials: int) -> list[dict[str, Any]]:
    """Points of the quickstart's space, the same in every call."""
    recipe = load_recipe("quickstart", {})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [suggest(recipe.space, study.ask(), recipe.fixed_values()) for _ in range(trials)]


def runs(asked: argparse.Namespace) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(arm, seed, changes) of every run of the table."""
    if asked.what == "defaults":
        for seed, arm in itertools.product(range(asked.seeds), [*DEFAULTS, INITIALISED, PEER]):
            yield arm, seed, DEFAULTS.get(arm, {})
        return
    for number, values in enumerate(random_values(asked.trials)):
        yield "now", number, values
        yield "not averaged", number, {**values, "ema_epochs": None}
        yield "before", number, {**values, **BEFORE}


def train(config: TrainConfig, data: Dataset, initialised: bool = False) -> list[dict[str, float]]:
    """The metrics of each epoch, with the CPU seconds until then."""
    state = TrainState(config, data, torch.device("cpu"))
    if initialised:
        initialise_as_the_peer(state.model)
        decay = config.averaging_decay(len(data["train"]))
        state.ema = None if decay is None else AveragedWeights(state.model, decay)
    started, history = time.process_time(), []
    for report in fit(config, data, state):
        history.append({**report.metrics, "cpu_s": time.process_time() - started})
    return history


@torch.no_grad()
def initialise_as_the_peer(model: UNet) -> None:
    """segmentation_models_pytorch: He uniform in the decoder, Xavier in the head, biases 0."""
    for name, module in model.named_modules():
        if name.startswith("encoder.") or not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            continue
        if name == "head":
            nn.init.xavier_uniform_(module.weight)
        else:
            nn.init.kaiming_uniform_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


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
        record = {"set": asked.set, "epochs": asked.epochs, "encoder": asked.encoder}
        record |= {"what": asked.what, "arm": arm, "seed": seed, "changes": changes}
        if arm == PEER:
            record["history"] = plain_loop(changed, data)
        else:
            record["history"] = train(changed, data, initialised=arm == INITIALISED)
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
        key = key_of(record)
        curve = [epoch["val/miou"] for epoch in record["history"]]
        tables.setdefault(key, {}).setdefault(record["arm"], []).append(curve)
    return tables


def tables(path: Path) -> None:
    """Print what the file holds."""
    found = records(path)
    for (what, name, encoder, epochs), arms in groups(found).items():
        print(f"\n{what}, {name}, {encoder}, {epochs} epochs\n")
        (defaults_table if what == "defaults" else curves_table)(arms, epochs)
        place = (what, name, encoder, epochs)
        equal_time([record for record in found if key_of(record) == place])


def key_of(record: dict[str, Any]) -> tuple:
    return record["what"], Path(record["set"]).name, record["encoder"], record["epochs"]


def equal_time(found: list[dict[str, Any]]) -> None:
    """Print ours and the peer's scores when the peer's CPU seconds of each seed are spent."""
    curves = {(record["arm"], record["seed"]): record["history"] for record in found}
    ours, theirs = [], []
    for (arm, seed), peer in curves.items():
        own = curves.get(("as it is", seed))
        if arm == PEER and own is not None:
            spent = [epoch["val/miou"] for epoch in own if epoch["cpu_s"] <= peer[-1]["cpu_s"]]
            ours.append(spent[-1])
            theirs.append(peer[-1]["val/miou"])
    if ours:
        print(
            f"\nAt the peer's CPU seconds, mean of {len(ours)} seeds: ours "
            f"{statistics.mean(ours):.3f}, the peer's {statistics.mean(theirs):.3f}."
        )


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


def cut(root: Path, target: Path) -> None:
    """Write a small folder set: a square of SIDE_PX at a random place of every image."""
    for split in ("train", "val"):
        rng = np.random.default_rng(0)
        for image in sorted((root / split / "images").iterdir()):
            mask = root / split / "masks" / f"{image.stem}.png"
            with Image.open(image) as opened, Image.open(mask) as labels:
                left, top = (int(rng.integers(0, side - SIDE_PX + 1)) for side in opened.size)
                box = (left, top, left + SIDE_PX, top + SIDE_PX)
                for folder, picture in (("images", opened.convert("RGB")), ("masks", labels)):
                    (target / split / folder).mkdir(parents=True, exist_ok=True)
                    picture.crop(box).save(target / split / folder / f"{image.stem}.png")
    classes = root / "classes.txt"
    (target / "classes.txt").write_text(classes.read_text(encoding="utf-8"), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["defaults", "curves", "tables", "plot", "cut"])
    parser.add_argument("--out", type=Path, default=Path("learning.jsonl"))
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
    elif asked.what == "cut":
        cut(Path(asked.set), asked.to)
    elif asked.what == "plot":
        plot(asked.out, asked.to)
    else:
        measure(asked)


if __name__ == "__main__":
    main()
