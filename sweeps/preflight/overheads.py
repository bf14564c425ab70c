"""What a sweep takes beside training and validation: processes that start, files, the report.

For short trials this is most of the wall time. It is measured where that is cheap: a process that
imports what a worker imports, and one experiment in miniature in a folder of its own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from sweeps.execution.placement import Placement
from sweeps.execution.trial import CHECKPOINT_EVERY_S
from sweeps.preflight.smoke_test import SIDE_PX, miniature, shrunk
from unetexp.data import Dataset
from unetexp.metrics.latency import most_seconds
from unetexp.training.config import TrainConfig
from unetexp.training.experiment import Experiment


@dataclass(frozen=True)
class Overheads:
    """Seconds beside training and validation."""

    worker_s: float = 0.0  # until a process has started and imported what trials need
    trial_s: float = 0.0  # to begin and to end a trial
    epoch_s: float = 0.0  # after an epoch: best model and pictures

    def start_s(self, placement: Placement) -> float:
        """From the sweep's first line to its first trial's.

        Ray starts processes of Python of its own first, taken to need as long as one worker; then
        the workers start, which only delay each other where they are more than cores.
        """
        together = placement.max_concurrent * placement.ranks / max(1, placement.cpus)
        return self.worker_s * (1 + max(1.0, together))

    @property
    def end_s(self) -> float:
        """From the last trial's end to the sweep's: the tracking store catches up, Ray ends, the
        report is drawn. Measured to take about half as long as a worker needs to start.
        """
        return self.worker_s / 2


NO_OVERHEADS = Overheads()


def trial_overheads(
    config: TrainConfig, data: Dataset, device: torch.device, val_s: float
) -> tuple[float, float]:
    """Seconds beside training and validation of a trial, and of each of its epochs.

    `val_s` is what validating one image takes, from which that of measuring the latency follows.
    """
    # A rate at which nothing moves costs as much and never leads to a loss that is not finite.
    optimizer = config.optimizer.model_copy(update={"lr": 1e-9})
    small = shrunk(config).model_copy(update={"epochs": 2, "optimizer": optimizer})
    with (
        miniature(data, small.batch_size, 2, SIDE_PX) as few,
        TemporaryDirectory(prefix="unetexp-preflight-") as folder,
    ):
        mark = time.perf_counter()
        experiment = Experiment(small, few, Path(folder) / "trial", device)
        setup_s, mark = time.perf_counter() - mark, time.perf_counter()
        trained, beside = [], []
        for report in experiment.run(0, CHECKPOINT_EVERY_S):
            spent = time.perf_counter() - mark
            trained.append(report.metrics["time/train_s"])
            beside.append(max(0.0, spent - trained[-1] - report.metrics["time/val_s"]))
            mark = time.perf_counter()
        end_s = time.perf_counter() - mark
    first_step_s = max(0.0, trained[0] - trained[1])
    return setup_s + first_step_s + end_s + most_seconds(val_s), sum(beside) / len(beside)
