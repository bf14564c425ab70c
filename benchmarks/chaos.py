"""Disturbs a real sweep on the CPU by random faults, resumes it, and compares it with a twin.

    python benchmarks/chaos.py                      21 faults, about 15 minutes on 2 cores
    python benchmarks/chaos.py --faults checkpoint,clock --count 2 --trials 2 --epochs 6 \\
        --checkpoint-every-s 0 --against alone      a short run

The faults, in a random order: `driver` and `node` (kill -9 of the driver, of the machine's Ray
node), `ctrl-c`, `worker` (kill -9), `disk` (full; a tmpfs, which needs root), `server` (the MLflow
server is killed and restarted), `checkpoint` (the newest is truncated and the driver killed),
`clock` (the driver's clock jumps by up to a day). They come after randomly drawn epochs of the
sweep; the driver is paused there, so that each fault takes effect. The seed decides all draws. A
dead driver is restarted with `--resume`.

With one trial at a time the sweep must equal its twin, the same sweep undisturbed. With
`--max-concurrent 2`, where the order of the results is random, and with `--against alone`, each
trial must equal its config trained alone. In both cases the proposed and the stopped trials must
equal those of a replay of the recorded scores.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # this checkout, not this folder

from benchmarks.disturbance.faults import FAULTS, Chaos, disturb, draw  # noqa: E402
from benchmarks.disturbance.shaken import Controls  # noqa: E402
from benchmarks.disturbance.victims import Server, Sweep  # noqa: E402

if TYPE_CHECKING:
    from sweeps.config.recipe import Recipe

RECIPE = """
base:
  encoder: {name: resnet18, weights: none}
  augment: {crop_px: 32}
  batch_size: 2
space:
  encoder.freeze: {kind: choice, values: [none, stem]}
  decoder.upsampling: {kind: choice, values: [bilinear, nearest]}
  loss.kind: {kind: choice, values: [cross_entropy, focal]}
  loss.gamma: {kind: uniform, low: 1, high: 3, when: {loss.kind: focal}}
  optimizer.lr: {kind: loguniform, low: 1.0e-3, high: 1.0e-2}
budget: {keep_models: all}  # the weights of all trials are compared
"""
DISK_MIB = 2048
NAME, TWIN = "disturbed", "twin"
AGAINST = {"twin": "the undisturbed twin", "alone": "the same configs trained alone"}


def main() -> None:
    options = read_options()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        place = options.keep or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        done, differences = run(options, place)
    print("| fault | times |\n|---|---|")
    print("\n".join(f"| {fault} | {count} |" for fault, count in sorted(done.items())))
    print(f"| all | {done.total()} |")
    print(f"\n| against {AGAINST[options.against]} | count |\n|---|---|")
    print("\n".join(f"| {what} | {count} |" for what, count in differences.items()))
    sys.exit(1 if any(differences.values()) else 0)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=lambda text: text.split(","), default=list(FAULTS))
    parser.add_argument("--count", type=int, default=21)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--max-concurrent", type=int, default=1)
    parser.add_argument("--against", choices=AGAINST)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint-every-s", type=float, default=1.0)
    parser.add_argument("--outage-s", type=float, nargs=2, default=(2, 15), metavar=("MIN", "MAX"))
    parser.add_argument("--keep", type=Path, help="keep all files, in this new folder")
    options = parser.parse_args()
    if unknown := set(options.faults) - set(FAULTS):
        parser.error(f"no such fault: {', '.join(unknown)}")
    options.against = options.against or ("twin" if options.max_concurrent == 1 else "alone")
    return options


def run(options: argparse.Namespace, place: Path) -> tuple[Counter, dict[str, int]]:
    """The number of faults of each kind, and the differences between the sweeps, counted."""
    os.environ["UNETEXP_CACHE"] = str(place / "cache")
    rng = random.Random(options.seed)
    faults = draw(options.faults, options.count, rng)
    (place / "small.yaml").write_text(RECIPE, encoding="utf-8")
    write_data(place / "data")
    with served("server" in faults, place) as (uri, server), disk(place, "disk" in faults) as full:
        flags = ["--trials", options.trials, "--epochs", options.epochs, "--tracking-uri", uri]
        flags += ["--max-concurrent", options.max_concurrent]
        if options.against == "twin":
            twin = Sweep(TWIN, place, place / "runs", flags, Controls())
            twin.start()
            with closing(twin):
                assert twin.wait(3600) == 0, Path(twin.log.name).read_text(encoding="utf-8")
        controls = Controls(hold_at=1, checkpoint_every_s=options.checkpoint_every_s)
        sweep = Sweep(NAME, place, full, flags, controls)
        sweep.start()
        with closing(sweep):
            recipe, rungs, epochs = what_to_expect(options, place)  # while it starts
            chaos = Chaos(sweep, server, tuple(options.outage_s), rungs, rng)
            done, unasked = disturb(chaos, faults, epochs)
        differences = compare(options, uri, recipe, sweep, place)
    differences["ends of the driver without a fault"] = unasked
    differences["Ctrl-C without exit code 130 within 20 s"] = chaos.slow_exits
    return done, differences


def what_to_expect(options: argparse.Namespace, place: Path) -> tuple[Recipe, list[int], int]:
    """The recipe, the epochs after which trials may end, and the minimum epochs of the sweep."""
    from sweeps.config.loading import load_recipe
    from sweeps.search.asha import milestones

    changes = {"epochs": options.epochs, "budget.trials": options.trials}
    recipe = load_recipe(str(place / "small.yaml"), changes, str(place / "data"))
    grace, longest = recipe.grace_epochs, recipe.base.epochs
    rungs = [*milestones(grace, longest, recipe.asha.reduction_factor), longest]
    # At least one trial has the full budget, and every other one its grace period.
    return recipe, rungs, longest + (options.trials - 1) * grace


def compare(
    options: argparse.Namespace, uri: str, recipe: Recipe, sweep: Sweep, place: Path
) -> dict[str, int]:
    """Compare the disturbed sweep with the twin, or with its configs trained alone."""
    import torch
    from mlflow import MlflowClient

    from benchmarks.disturbance import verdict
    from sweeps.state.ledger import FILE, Ledger
    from unetexp.data import open_dataset

    ledger = Ledger(sweep.folder / FILE, write=False)
    torch.set_num_threads(1)  # as in a trial
    client = MlflowClient(tracking_uri=uri)
    if options.against == "twin":
        undisturbed = verdict.read(client, TWIN, place / "runs" / TWIN)
    else:
        undisturbed = verdict.train_alone(ledger, recipe, open_dataset(recipe.base.data))
    disturbed = verdict.read(client, NAME, sweep.folder)
    return verdict.differences(disturbed, undisturbed, *verdict.replay(ledger, recipe))


@contextmanager
def served(wanted: bool, place: Path) -> Iterator[tuple[str, Server | None]]:
    """The tracking URI: an MLflow server if `wanted`, else a database."""
    if not wanted:
        yield f"sqlite:///{place / 'mlflow.db'}", None
        return
    server = Server(place)
    try:
        yield server.uri, server
    finally:
        server.kill()


@contextmanager
def disk(place: Path, can_be_full: bool) -> Iterator[Path]:
    """A folder; with `can_be_full` it is a separate small disk."""
    folder = place / "disk"
    folder.mkdir()
    if not can_be_full:
        yield folder
        return
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", folder]
    subprocess.run(mount, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


def write_data(root: Path) -> None:
    """Write four training images and three validation images with three classes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 3)):
        for folder in ("images", "masks"):
            (root / split / folder).mkdir(parents=True)
        for number in range(count):
            mask = np.kron(rng.integers(0, 3, (5, 6)), np.ones((8, 8), int)).astype(np.uint8)
            image = (mask * 80 + rng.integers(0, 60, mask.shape)).astype(np.uint8)
            for folder, pixels in (("images", np.stack([image] * 3, -1)), ("masks", mask)):
                Image.fromarray(pixels).save(root / split / folder / f"{number}.png")


if __name__ == "__main__":
    main()
