"""What an epoch's files cost training: written by the thread, as they are, and in the loop.

Every epoch is made the best one and writes all that one can: the best model, its pictures and a
checkpoint, as every epoch of a sweep does that takes longer than the time between checkpoints.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch

from benchmarks.peers.images import made_dataset
from benchmarks.peers.loops import Combination
from benchmarks.peers.ours import our_config
from unetexp.data import Dataset
from unetexp.training import experiment as experiment_module
from unetexp.training.config import TrainConfig
from unetexp.training.experiment import Experiment

PX, BATCH, IMAGES = 64, 2, 16  # an epoch takes longer than its files


class WrittenInTheLoop(AbstractContextManager["WrittenInTheLoop"]):
    """Stands in for the writer thread: each job is done when it is handed over."""

    def submit(self, job: Callable[[], None]) -> None:
        job()

    def flush(self) -> None:
        """Nothing waits."""

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""


@dataclass(frozen=True)
class Arm:
    """Seconds of every epoch but the first, whose caches are cold, and the last, which waits."""

    between_s: list[float]  # beside training and validation
    epoch_s: list[float]  # all of it

    def and_of(self, other: Arm) -> Arm:
        return Arm(self.between_s + other.between_s, self.epoch_s + other.epoch_s)


def beside_epochs(
    device: torch.device, encoder: str, decoder: str, *, epochs: int, rounds: int
) -> tuple[Arm, Arm]:
    """By the thread and in the loop, in turns."""
    config = our_config(Combination(), px=PX, batch=BATCH, encoder=encoder, decoder=decoder)
    config = config.model_copy(update={"epochs": epochs})
    thread, loop = Arm([], []), Arm([], [])
    with made_dataset(IMAGES, (PX + 16, PX + 16)) as data:
        for _ in range(rounds):
            thread = thread.and_of(_run(config, data, device, nullcontext()))
            in_loop = patch.object(experiment_module, "FileWriter", WrittenInTheLoop)
            loop = loop.and_of(_run(config, data, device, in_loop))
    return thread, loop


def _run(
    config: TrainConfig, data: Dataset, device: torch.device, writer: AbstractContextManager[object]
) -> Arm:
    between_s, epoch_s = [], []
    with TemporaryDirectory(prefix="unetexp-bench-") as folder, writer:
        experiment = Experiment(config, data, Path(folder), device)
        before = time.perf_counter()
        for report in experiment.run(durable_epochs=()):
            now = time.perf_counter()
            own_s = report.metrics["time/train_s"] + report.metrics["time/val_s"]
            epoch_s.append(now - before)
            between_s.append(now - before - own_s)
            before = now
            experiment.state.best_score = -math.inf
    return Arm(between_s[1:-1], epoch_s[1:-1])
