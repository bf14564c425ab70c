"""Training a recorded run again, and comparing the metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from unetexp.compute.measured import CHOSEN
from unetexp.compute.settings import resolved
from unetexp.data import Dataset
from unetexp.errors import DataError
from unetexp.tracking.recorded_run import History, RecordedRun
from unetexp.training.config import TrainConfig
from unetexp.training.experiment import Experiment, machine
from unetexp.training.loop import EpochReport

# On other machines the last bits differ, and training amplifies that: these are stable enough.
TOLERANCE = 0.05
TOLERATED = ("val/miou", "val/dice", "val/pixel_accuracy")

_CHECKPOINT_EVERY_S = 20.0
_WHERE = {
    "device": "the device",
    "cpu": "the CPU",
    "threads": "the number of threads",
    "torch": "torch",
    "unetexp": "unetexp",
    "precision": "the precision",
    "memory_format": "the memory layout",
    "compile": "the mode of torch.compile",
    "ranks": "the number of processes",
}


@dataclass(frozen=True)
class Difference:
    """A metric that differs from the recorded one."""

    metric: str
    epoch: int
    recorded: float
    found: float

    def describe(self) -> str:
        return f"epoch {self.epoch} {self.metric}: {self.recorded!r} recorded, {self.found!r} now"


def require_same_data(record: RecordedRun, data: Dataset) -> None:
    """Raise DataError unless the data is what the run was trained on."""
    if data.fingerprint != record.fingerprint:
        raise DataError(
            f"the data is not what run {record.run_id} was trained on: its fingerprint is "
            f"{data.fingerprint[:16]}... and the run's {record.fingerprint[:16]}... An image, a "
            "mask, a class name, a file's name or the split has changed. Give the data as it was "
            "with --data."
        )


def config_again(record: RecordedRun, device: torch.device) -> TrainConfig:
    """The run's configuration, with `auto` resolved as on the run's hardware.

    On the CPU this also sets the run's number of threads in this process.
    """
    config = record.config
    known = {name: record.machine[name] for name in CHOSEN if name in record.machine}
    config = config.model_copy(update=known)
    if device.type == "cpu" and "threads" in record.machine:
        torch.set_num_threads(int(record.machine["threads"]))
    return config


def device_of(record: RecordedRun) -> str:
    """The device to use: the kind that the run had, if recorded."""
    return "cpu" if record.machine.get("device") == "cpu" else "auto"


def why_not_to_the_bit(record: RecordedRun, config: TrainConfig, device: torch.device) -> list[str]:
    """Why the metrics may differ in the last bits; empty if they must be bit-identical."""
    if not record.machine:
        return ["the run does not say what it was trained on"]
    here = machine(resolved(config, device), device)
    reasons = [
        f"{wording} was {record.machine[name]} and is {here[name]}"
        for name, wording in _WHERE.items()
        if name in record.machine and record.machine[name] != here[name]
    ]
    if device.type == "cuda":
        reasons.append("a GPU sums in no fixed order")
    if len(record.micro_batches) > 1:
        sizes = ", then ".join(map(str, reversed(record.micro_batches)))
        reasons.append(f"the run ran out of memory and changed its micro-batches ({sizes} images)")
    return reasons


def train_again(
    record: RecordedRun,
    config: TrainConfig,
    data: Dataset,
    folder: Path,
    device: torch.device,
    on_epoch: Callable[[EpochReport], None],
) -> History:
    """Train for as many epochs as the run did, on the schedule of its whole budget.

    Returns the metrics of all epochs. Resumes from what an interrupted call left in `folder`.
    """
    accumulation = config.batch_size // record.micro_batches[0]
    experiment = Experiment(config, data, folder, device, accumulation, score=record.score)
    workers = 4 if device.type == "cuda" else 0
    for report in experiment.run(workers, _CHECKPOINT_EVERY_S):
        on_epoch(report)
        if report.epoch >= record.epochs:
            break
    experiment.forget_resume_state()
    return _by_metric(experiment.state.history)


def differences(
    recorded: History, found: History, *, tolerance: float | None = None
) -> list[Difference]:
    """The recorded metrics that were not reproduced, the earliest first.

    Without a tolerance all must be bit-identical; with one, `TOLERATED` must agree within it.
    """
    names = recorded if tolerance is None else [name for name in TOLERATED if name in recorded]
    pairs = [
        Difference(name, epoch, value, found.get(name, {}).get(epoch, math.nan))
        for name in names
        for epoch, value in recorded[name].items()
    ]
    most = tolerance or 0.0
    off = [pair for pair in pairs if not abs(pair.recorded - pair.found) <= most]
    return sorted(off, key=lambda pair: (pair.epoch, pair.metric))


def _by_metric(history: Sequence[Mapping[str, float]]) -> History:
    found: History = {}
    for report in history:
        for name, value in report.items():
            found.setdefault(name, {})[int(report["epoch"])] = value
    return found
