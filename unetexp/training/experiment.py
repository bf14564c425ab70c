"""One experiment in one folder: training, checkpoints and the best model.

With `data.folds` it trains one model for each fold, and best/ holds all of them as one.

FOLDER/config.yaml         the whole configuration
FOLDER/best/               model.safetensors, config.json, metrics.json, overlay.png,
                           worst.png: the images with the lowest mIoU
FOLDER/overlays/NNNNN.png  the overlay grid of some epochs, the same for all runs of equal length
FOLDER/epoch-NNNNN/        resume state: the last two epochs, removed when the run has ended
"""

from __future__ import annotations

import json
import logging
import math
import statistics
import time
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from unetexp.atomic_folder import recover, replacing
from unetexp.compute.device import device_kind
from unetexp.compute.distributed import ALONE, Ranks
from unetexp.compute.measured import chosen_by
from unetexp.compute.settings import ComputeSettings
from unetexp.data import Dataset
from unetexp.errors import CheckpointError
from unetexp.metrics.latency import latency_once_ms
from unetexp.models.saved_model import CONFIG, parameter_count, save_weights
from unetexp.system.machine import cpu_model
from unetexp.training.config import SCORE, TrainConfig, decode_recorded, read_tree
from unetexp.training.folds import FoldedState, fit_folds
from unetexp.training.loop import EpochReport, fit
from unetexp.training.pictures import as_png, fixed_images, overlay_grid, worst_grid
from unetexp.training.state import Checkpoints, TrainState
from unetexp.training.writer import FileWriter, Job, Snapshot
from unetexp.version import __version__

log = logging.getLogger(__name__)

BEST, METRICS, OVERLAY, WORST = "best", "metrics.json", "overlay.png", "worst.png"
OVERLAYS = "overlays"


class Experiment:
    """A training run in `folder`, which resumes from the checkpoints there."""

    def __init__(
        self,
        config: TrainConfig,
        data: Dataset,
        folder: Path,
        device: torch.device,
        accumulation: int | None = None,
        ranks: Ranks = ALONE,
        compute: ComputeSettings | None = None,
        score: str = SCORE,
    ) -> None:
        """`accumulation` overrides the config's if memory is too small for its micro-batches.

        `compute` is what was measured for the settings that are `auto`, `score` the validation
        metric of the best epoch. With several `ranks` only the first has an Experiment and writes
        files; the others call `follow`. Raises CheckpointError if `folder` holds another
        experiment.
        """
        self.config, self.data, self.folder, self._ranks = config, data, folder, ranks
        self._score = score
        self._accumulation = accumulation or config.accumulation
        folder.mkdir(parents=True, exist_ok=True)
        _claim(folder / "config.yaml", config)
        self._checkpoints = Checkpoints(folder, {"config": config.tree(), "data": data.fingerprint})
        self._chosen_by = chosen_by(config, compute)
        self.state = _start(config, data, device, compute)
        recover(folder / BEST)
        self.skipped_checkpoints = self._checkpoints.load_latest(self.state)  # one message each
        for message in self.skipped_checkpoints:
            log.warning(message)
        self.state.follow_first(ranks)

    def run(
        self,
        workers: int = 0,
        checkpoint_every_s: float = 0.0,
        *,
        durable_epochs: Collection[int] | None = None,
        on_written: Callable[[], None] | None = None,
    ) -> Generator[EpochReport]:
        """Train to the end, yielding after each epoch.

        A thread writes the files while the next epoch trains; its errors are raised here, at the
        latest one epoch later. It is done with them when this generator ends or is closed.

        The best model is on disk before its epoch is yielded. With `durable_epochs` that holds for
        those epochs, the last one and any whose score is not finite; after a crash in another one
        the best model may be that of an earlier epoch, and the resumed run repeats the rest.

        The resume state is of an epoch that was yielded and of no later one, and never newer than
        the best model. It is written only if `checkpoint_every_s` seconds have passed since the
        last one: short epochs are faster to repeat than to save. `on_written` is called, in the
        thread, whenever files have been written.
        """
        saved = time.monotonic()
        reports = _epochs(
            self.config.model_copy(update={"accumulation": self._accumulation}),
            self.data,
            self.state,
            workers=workers,
            keep_predictions=fixed_images(len(self.data["val"])),
            ranks=self._ranks,
            score=self._score,
        )
        with FileWriter() as files:
            for report in reports:
                if write := self._results_writer(report):
                    files.submit(_followed_by(write, on_written))
                if self._is_durable(report, durable_epochs):
                    files.flush()
                yield report
                due = time.monotonic() - saved >= checkpoint_every_s
                if due and report.epoch < self.config.epochs:
                    files.submit(_followed_by(self._checkpoint_writer(), on_written))
                    saved = time.monotonic()
        self.forget_resume_state()

    def forget_resume_state(self) -> None:
        """Remove what is only needed to resume the run."""
        self._checkpoints.clear()

    @property
    def micro_batch(self) -> int:
        """Images per micro-batch."""
        return self.config.batch_size // self._accumulation

    def model_figures(self) -> dict[str, float]:
        """`model/parameters`, and `time/latency_ms` of one image of the usual validation size.

        Of models that are built alike the latency is measured once in a process.
        """
        model = self.state.evaluated_model
        height, width = statistics.mode(self.data["val"].shapes)
        return {
            "model/parameters": parameter_count(model),
            "time/latency_ms": latency_once_ms(model, self.data.channels, height, width),
        }

    def _is_durable(self, report: EpochReport, durable_epochs: Collection[int] | None) -> bool:
        if durable_epochs is None or report.epoch in {*durable_epochs, self.config.epochs}:
            return True
        return not math.isfinite(report.metrics[self._score])

    def _results_writer(self, report: EpochReport) -> Job | None:
        """What writes the best model and the pictures of an epoch; None if it has neither."""
        pictured = report.epoch in pictured_epochs(self.config.epochs)
        if not (report.improved or pictured):
            return None
        state = self.state
        best = state.evaluated_model.state_dict() if report.improved else None
        weights = Snapshot.of(best, state.device) if best else None
        on = {
            **machine(state.compute, state.device, self._ranks.world),  # of this thread
            "chosen_by": self._chosen_by,
        }

        def write() -> None:
            overlay = as_png(overlay_grid(self.data, report.evaluation.predictions))
            if weights:
                self._write_best(report, weights, overlay, on)
            if pictured:
                place = self.folder / OVERLAYS / f"{report.epoch:05d}.png"
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(overlay)

        return write

    def _write_best(
        self, report: EpochReport, weights: Snapshot, overlay: bytes, on: dict[str, str]
    ) -> None:
        evaluation = report.evaluation
        with replacing(self.folder / BEST) as scratch:
            initial, settings = self.state.initial_weights, self.state.settings
            save_weights(scratch, weights.content(), self.config, self.data, report.epoch, initial)
            record = {
                "epoch": report.epoch,
                "metrics": report.metrics,
                "classes": list(self.data.class_names),
                "confusion": evaluation.confusion.tolist(),
                "machine": on,
                "initial_weights": initial.record(),
                "settings": settings,
            }
            (scratch / METRICS).write_text(json.dumps(record), encoding="utf-8")
            (scratch / OVERLAY).write_bytes(overlay)
            worst_grid(self.data, evaluation.worst, evaluation.image_miou).save(scratch / WORST)

    def _checkpoint_writer(self) -> Job:
        state = Snapshot.of(self.state.state_dict(), self.state.device)
        return lambda: self._checkpoints.save(state.content())


def _followed_by(write: Job, then: Job | None) -> Job:
    def both() -> None:
        write()
        if then:
            then()

    return both


def pictured_epochs(epochs: int) -> list[int]:
    """The epochs of a run whose overlay grids are kept: the first, the last, some between."""
    return [index + 1 for index in fixed_images(epochs, wanted=5)]


def overlays(folder: Path) -> dict[int, Path]:
    """The overlay grids of the run in `folder`, by epoch."""
    return {int(path.stem): path for path in sorted((folder / OVERLAYS).glob("*.png"))}


def follow(
    config: TrainConfig,
    data: Dataset,
    device: torch.device,
    ranks: Ranks,
    *,
    accumulation: int | None = None,
    workers: int = 0,
    compute: ComputeSettings | None = None,
) -> Iterator[EpochReport]:
    """The experiment on every rank but the first: trains and writes no files."""
    state = _start(config, data, device, compute)
    state.follow_first(ranks)
    config = config.model_copy(update={"accumulation": accumulation or config.accumulation})
    fixed = fixed_images(len(data["val"]))
    yield from _epochs(config, data, state, workers=workers, keep_predictions=fixed, ranks=ranks)


def _start(
    config: TrainConfig, data: Dataset, device: torch.device, compute: ComputeSettings | None
) -> TrainState | FoldedState:
    """The start of a run: of one model, or of one for each fold."""
    state = FoldedState if data.folds else TrainState
    return state(config, data, device, compute)


def _epochs(
    config: TrainConfig, data: Dataset, state: TrainState | FoldedState, **how: Any
) -> Iterator[EpochReport]:
    if isinstance(state, FoldedState):
        return fit_folds(config, data, state, **how)
    return fit(config, data, state, **how)


def best_figures(folder: Path) -> dict[str, Any]:
    """The record of the best epoch of the run in `folder`.

    `epoch`, `metrics`, `classes`, `confusion`, the `machine` that it was trained on, where its
    `initial_weights` came from, and which `settings` were proved.
    """
    record = json.loads((folder / BEST / METRICS).read_text(encoding="utf-8"))
    assert isinstance(record, dict)
    return record


def has_model(folder: Path) -> bool:
    """Whether the run in `folder` has written a best model."""
    return (folder / BEST / CONFIG).is_file()


def _claim(path: Path, config: TrainConfig) -> None:
    if path.exists() and decode_recorded(read_tree(path), str(path)) != config:
        raise CheckpointError(
            f"{path.parent} holds an experiment with another configuration: choose another "
            "folder, or remove that one."
        )
    path.write_text(yaml.safe_dump(config.tree(), sort_keys=False), encoding="utf-8")


MACHINE = "machine."  # prefix of the names of these tags of a trial's run


def machine(compute: ComputeSettings, device: torch.device, ranks: int = 1) -> dict[str, str]:
    """`cpu`, `threads`, `device` (cpu or the GPU's name), `ranks`, versions and how it computes."""
    return {
        "cpu": cpu_model(),
        "threads": str(torch.get_num_threads()),
        "device": device_kind(device) if device.type == "cuda" else "cpu",
        "ranks": str(ranks),
        **asdict(compute),
        "torch": torch.__version__,
        "unetexp": __version__,
    }
