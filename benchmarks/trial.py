"""What a trial costs beside its training: its start, its files, and the disk that a sweep leaves.

    python -m benchmarks.trial                        8 trials of 4 epochs, about two minutes
    python -m benchmarks.trial --trials 100 --epochs 1 --encoder resnet18
    python -m benchmarks.trial --quick                4 trials of 3 epochs

A real sweep runs on a few made images, one trial at a time in one worker, and its ledger says when
everything happened. Training and validation are subtracted as the trials timed them themselves, so
what is left is the model's construction, Ray's hand-over, files and pictures.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from benchmarks.between_epochs import Arm, beside_epochs  # noqa: E402
from benchmarks.peers.images import made_dataset, write_images  # noqa: E402
from benchmarks.peers.loops import Combination  # noqa: E402
from benchmarks.peers.ours import our_config  # noqa: E402
from benchmarks.peers.report import about, figures_table, heading, write_json  # noqa: E402
from benchmarks.peers.rounds import Spread  # noqa: E402
from sweeps.state.ledger import FILE, Event, read_ledger  # noqa: E402
from sweeps.state.storage import folder_bytes  # noqa: E402
from unetexp.models.saved_model import WEIGHTS  # noqa: E402
from unetexp.training.experiment import Experiment  # noqa: E402
from unetexp.training.loop import fit  # noqa: E402

NAME, PX, BATCH, IMAGES = "trials", 32, 2, 4
START_TARGET_S = 1.0
MIB = 2**20
RECIPE = """
base:
  encoder: {{name: {encoder}, weights: none}}
  decoder: {{kind: {decoder}}}
  augment: {{crop_px: {px}}}
  batch_size: {batch}
space:
  optimizer.lr: {{kind: loguniform, low: 1.0e-4, high: 1.0e-3}}
"""


@dataclass(frozen=True)
class Disk:
    """What a finished sweep leaves in its storage."""

    whole: int  # trials with weights
    pruned: int  # trials without
    whole_bytes: float  # per trial
    pruned_bytes: float
    total_bytes: int


@dataclass(frozen=True)
class Measured:
    """Seconds, and the disk."""

    construct_s: list[float]  # in this process, from nothing to the first batch in the model
    start_s: list[float]  # from a trial's end to the next one's first epoch, less that epoch
    epoch_s: list[float]  # between two epochs of a trial, less the second one
    disk: Disk
    store_bytes: int  # of the sweep's runs: database, pictures, and the kept weights once more
    thread: Arm  # between epochs whose files the thread writes
    loop: Arm  # the same where they are written in the loop


def run_sweep(place: Path, options: argparse.Namespace) -> Path:
    """Run a sweep through the command line; returns its folder. Its output is in place/log."""
    write_images(place / "data", {"train": IMAGES, "val": 1}, (48, 48), classes=3)
    recipe = RECIPE.format(encoder=options.encoder, decoder=options.decoder, px=PX, batch=BATCH)
    (place / "recipe.yaml").write_text(recipe, encoding="utf-8")
    command = [
        sys.executable, ROOT / "sweeps/run.py", place / "recipe.yaml", "--data", place / "data",
        "--storage", place / "runs", "--name", NAME, "--gpus", 0, "--cpus-per-trial", 1,
        "--max-concurrent", 1, "--skip-preflight", "--trials", options.trials,
        "--epochs", options.epochs, "--tracking-uri", f"sqlite:///{place / 'mlflow.db'}",
    ]  # fmt: skip
    with (place / "log").open("w", encoding="utf-8") as log:
        done = subprocess.run(
            [str(word) for word in command],
            env={**os.environ, "UNETEXP_CACHE": str(place / "cache"), "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        sys.exit(f"The sweep failed:\n{(place / 'log').read_text(encoding='utf-8')[-4000:]}")
    return place / "runs" / NAME


def seconds_beside(events: list[Event]) -> tuple[list[float], list[float]]:
    """Of starts in a warm worker and of epochs: wall time less training and validation."""
    starts, epochs = [], []
    ended: float | None = None
    before: Event | None = None
    for event in events:
        if event["event"] == "end":
            ended, before = event["at"], None
        if event["event"] != "epoch":
            continue
        metrics = event["metrics"]
        own = metrics["time/train_s"] + metrics["time/val_s"]
        if before is not None:
            epochs.append(event["at"] - before["at"] - own)
        elif ended is not None:  # the sweep's first trial starts its worker too
            starts.append(event["at"] - ended - own)
        before = event
    return starts, epochs


def disk_of(folder: Path) -> Disk:
    """The sizes of the trials' folders, with weights and without, and of the whole sweep's."""
    whole, pruned = [], []
    for trial in sorted((folder / "trials").iterdir()):
        kept = any(trial.rglob(WEIGHTS))
        (whole if kept else pruned).append(folder_bytes(trial))
    return Disk(len(whole), len(pruned), _mean(whole), _mean(pruned), folder_bytes(folder))


def _mean(sizes: list[int]) -> float:
    return sum(sizes) / len(sizes) if sizes else 0.0


def construct_seconds(
    device: torch.device, encoder: str, decoder: str, repeats: int = 3
) -> list[float]:
    """From nothing to the first batch in the model, in a process that has done it before."""
    config = our_config(Combination(), px=PX, batch=BATCH, encoder=encoder, decoder=decoder)
    seconds = []
    with made_dataset(IMAGES, (48, 48)) as data, TemporaryDirectory() as scratch:
        for number in range(repeats + 1):
            started = time.perf_counter()
            experiment = Experiment(config, data, Path(scratch) / str(number), device)
            reached: list[float] = []
            # The whole model may be compiled or replaced; its parts are called all the same.
            hook = experiment.state.model.register_forward_pre_hook(
                lambda *_, at=reached: at.append(time.perf_counter())
            )
            next(fit(config, data, experiment.state))
            hook.remove()
            seconds.append(reached[0] - started)
    return seconds[1:]


def measured(options: argparse.Namespace) -> Measured:
    """All parts, one after the other."""
    cpu = torch.device("cpu")
    construct_s = construct_seconds(cpu, options.encoder, options.decoder)
    epochs, rounds = (4, 1) if options.quick else (6, 2)
    thread, loop = beside_epochs(
        cpu, options.encoder, options.decoder, epochs=epochs, rounds=rounds
    )
    with TemporaryDirectory(prefix="unetexp-bench-", ignore_cleanup_errors=True) as scratch:
        folder = run_sweep(Path(scratch), options)
        start_s, epoch_s = seconds_beside(read_ledger(folder / FILE).events)
        database, artifacts = Path(scratch) / "mlflow.db", Path(scratch) / "mlartifacts"
        store_bytes = database.stat().st_size + folder_bytes(artifacts)
        disk = disk_of(folder)
    return Measured(construct_s, start_s, epoch_s, disk, store_bytes, thread, loop)


def table(found: Measured) -> str:
    """The figures as Markdown."""
    disk = found.disk
    trials = disk.whole + disk.pruned
    thread, loop = found.thread, found.loop
    construct_s, start_s, epoch_s, *both = (
        Spread.of(values).median if values else None
        for values in (
            *(found.construct_s, found.start_s, found.epoch_s),
            *(thread.between_s, loop.between_s, thread.epoch_s, loop.epoch_s),
        )
    )
    without = disk.pruned_bytes / MIB if disk.pruned else None
    rows = [
        ("start: until the first batch is in the model", construct_s, "s", START_TARGET_S),
        ("start in a warm worker, Ray and files included", start_s, "s", START_TARGET_S),
        ("beside each later epoch", epoch_s, "s", None),
        ("between two epochs, all files by the writer thread", both[0], "s", None),
        ("between two epochs, all files in the loop", both[1], "s", None),
        ("a whole epoch there, all files by the writer thread", both[2], "s", None),
        ("a whole epoch there, all files in the loop", both[3], "s", None),
        (f"trials of {trials} that keep their weights", disk.whole, "", None),
        ("disk of a trial with weights", disk.whole_bytes / MIB, "MiB", None),
        ("disk of a trial without", without, "MiB", None),
        (f"disk of the sweep of {trials}", disk.total_bytes / MIB, "MiB", None),
        ("disk of its runs in the tracking store", found.store_bytes / MIB, "MiB", None),
    ]
    return figures_table(rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--decoder", choices=["slim", "classic"], default="slim")
    parser.add_argument("--quick", action="store_true", help="4 trials of 3 epochs")
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args(arguments)
    if options.quick:
        options.trials, options.epochs = 4, 3
    facts = about(torch.device("cpu"), f"{options.encoder} {options.decoder}")
    print(f"## Trial\n\n{heading(facts)}\n", flush=True)
    found = measured(options)
    print(table(found))
    write_json(
        options.json,
        {"about": facts, **asdict(found)},
    )


if __name__ == "__main__":
    main()
