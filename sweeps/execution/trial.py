"""One trial in a Ray worker: config -> training -> one report per epoch."""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache
from types import TracebackType
from typing import Any

import psutil
import torch
from ray import tune

from sweeps.execution.gpu_health import (
    GpuFaultError,
    GpuSetAsideError,
    gpu_fault,
    require_sound_gpu,
)
from sweeps.search.trial_report import (
    REPORT,
    DiskFull,
    EpochFinished,
    TrialFailed,
    TrialMessage,
    TrialPlaced,
    TrialReport,
)
from sweeps.state.stop_reason import StopReason
from sweeps.state.storage import Storage, TrialFolder, is_full_disk
from unetexp.component import flatten
from unetexp.compute.compute_thread import in_compute_thread
from unetexp.compute.device import device_kind
from unetexp.compute.measured import Measured, is_free, settings_for
from unetexp.compute.process_state import process_state_kept
from unetexp.compute.settings import ComputeSettings, resolved
from unetexp.data import Dataset, open_dataset
from unetexp.errors import DataError, NonFiniteLossError, SettingIgnoredError
from unetexp.inference.validation_figures import write_figures
from unetexp.metrics.figures.settings import ValidationFigures
from unetexp.system.cuda_errors import is_device_fault, is_out_of_memory
from unetexp.training.config import SCORE, TrainConfig, decode_config
from unetexp.training.experiment import Experiment
from unetexp.training.loop import EpochReport

log = logging.getLogger(__name__)

CHECKPOINT_EVERY_S = 20.0
_MISSING = object()
_CUDA_GRAPHS = "torch._inductor.cudagraph_trees"  # imported when the first graph is recorded


class RanksLostError(RuntimeError):
    """A process of the trial died: not the configuration's fault; the trial runs again."""


@dataclass(frozen=True)
class TrialContext:
    """What all trials of a sweep share."""

    storage: Storage
    data: Dataset
    device: str  # cuda or cpu
    threads: int
    loader_workers: int
    ranks: int = 1  # GPUs that train one trial together
    rank_resources: Mapping[str, float] = field(default_factory=dict)  # what Ray gives each
    checkpoint_every_s: float = CHECKPOINT_EVERY_S
    compute: tuple[Measured, ...] = ()  # by the preflight, if there was one
    gpu_share: float = 1.0  # of a GPU's memory, for a trial that shares the GPU
    score: str = SCORE  # the metric of a trial's best epoch
    durable_epochs: frozenset[int] | None = None  # after which a trial may end; None: after any
    figures: ValidationFigures | None = None  # of a trial that has run all its epochs


# (trial, config, accumulation, context): trains and reports
Train = Callable[[str, TrainConfig, int, TrialContext], None]


def run_trial(config: dict[str, Any], context: TrialContext, train: Train | None = None) -> None:
    """Train `config["config"]`, the tree of a TrainConfig, as trial `config["trial"]`.

    It resumes from its checkpoint if it has one. All trials of a process compute in the same
    thread, which is not the one that Ray calls this in, and start in the same state of the process.

    `train` replaces training in this process. A lost process of a trial, or a GPU that failed or
    is set aside, is raised: Ray then runs the trial again, in a new process. Any other error is
    reported once the trial's memory is free, because the next trial may start at that moment.
    """
    logging.captureWarnings(True)
    _settle()
    gpu = require_sound_gpu()
    if gpu is not None:
        send(TrialPlaced(str(gpu)))
    try:
        failure = in_compute_thread(lambda: _train_to_the_end(config, context, train or _train))
    except Exception as error:
        if is_device_fault(error):
            raise gpu_fault(error, traceback.format_exc()) from None
        raise
    if failure is not None:
        send(failure)


def _train_to_the_end(
    config: dict[str, Any], context: TrialContext, train: Train
) -> TrialReport | None:
    """Train and free the trial's memory; returns the report of a failure, if there was one.

    Raises errors after which Ray runs the trial again, and Ray's own exception to stop it.
    """
    failure = None
    try:
        with process_state_kept():
            _take_share(context)
            train_config = decode_config(config["config"])
            require_proposed(config.get("values", {}), train_config)
            _train_in_memory(config["trial"], train_config, context, train)
    except (RanksLostError, GpuFaultError, GpuSetAsideError):
        raise
    except Exception as error:
        if is_device_fault(error):  # nothing can be released on that GPU
            raise
        failure = failure_report(error)
        _release_memory(error.__traceback__)
    except BaseException as stop:  # Ray's way to stop a trial
        _release_memory(stop.__traceback__)
        raise
    else:
        _release_memory(None)
    return failure


def _take_share(context: TrialContext) -> None:
    """The share of cores and of the GPU's memory that this trial has.

    On a GPU that trials share, the one that takes more than its part runs out of memory, not the
    one that asks last.
    """
    torch.set_num_threads(context.threads)  # of the thread that computes
    if context.device == "cuda":
        if context.gpu_share < 1:
            torch.cuda.set_per_process_memory_fraction(context.gpu_share)
        torch.cuda.reset_peak_memory_stats()  # those of the trial before


def require_proposed(values: Mapping[str, Any], config: TrainConfig) -> None:
    """SettingIgnoredError unless `config` has the proposed values, by dotted path."""
    has = flatten(config.tree())
    lost = [path for path, value in values.items() if has.get(path, _MISSING) != value]
    if lost:
        faults = (f"{p}: {values[p]} was proposed, and {has.get(p, 'nothing')} set" for p in lost)
        raise SettingIgnoredError(f"the trial's settings are not its proposal: {'; '.join(faults)}")


def send(report: TrialReport) -> None:
    """Send a report to the driver; Ray ends the trial here if it has to stop.

    Ray's session is of the process: any thread may report.
    """
    tune.report({REPORT: report})


def failure_report(error: Exception) -> TrialReport:
    """The report of an exception that would occur again in another attempt."""
    if isinstance(error, NonFiniteLossError):
        return TrialFailed(StopReason.NAN, str(error))
    if isinstance(error, SettingIgnoredError):
        return TrialFailed(StopReason.ERROR, str(error))
    if is_out_of_memory(error):
        return TrialFailed(StopReason.OOM, traceback.format_exc())
    if is_full_disk(error):
        return DiskFull(str(error))
    return TrialFailed(StopReason.ERROR, traceback.format_exc())


def _train_in_memory(trial: str, config: TrainConfig, context: TrialContext, train: Train) -> None:
    """Train; if memory runs out, continue with half the micro-batch and the same batch size."""
    accumulation = config.accumulation
    while True:
        try:
            return train(trial, config, accumulation, context)
        except Exception as error:
            smaller = smaller_micro_batch(config.batch_size, accumulation, context.ranks)
            if smaller is None or not is_out_of_memory(error):
                raise
            accumulation = smaller
            _release_memory(error.__traceback__)
        micro = config.batch_size // accumulation
        send(TrialMessage(f"out of memory, continues with micro-batches of {micro}"))


def smaller_micro_batch(batch_size: int, accumulation: int, ranks: int = 1) -> int | None:
    """The accumulation that at least halves the micro-batch, which `ranks` must divide.

    None if that is already one image per rank.
    """
    largest = batch_size // accumulation // 2
    sizes = (size for size in range(largest, 0, -1) if size % ranks == 0)
    return next((batch_size // size for size in sizes if batch_size % size == 0), None)


def _train(trial: str, config: TrainConfig, accumulation: int, context: TrialContext) -> None:
    data = data_on_this_node(context.data, config)
    with context.storage.trial_folder(trial) as folder:
        device = torch.device(context.device)
        compute = settings_for(context.compute, config, device)
        experiment = Experiment(
            config, data, folder.path, device, accumulation, compute=compute, score=context.score
        )
        unmeasured = not_measured(context.compute, compute, config, device)
        for sentence in [*unmeasured, *experiment.skipped_checkpoints]:
            send(TrialMessage(sentence))
        # Closed here, where the files are still wanted, however the trial ends.
        with closing(epochs_of(experiment, folder, context)) as reports:
            for report in reports:
                for note in report.notes:
                    send(TrialMessage(note))
                send(epoch_report(report, experiment, context))


def epochs_of(
    experiment: Experiment, folder: TrialFolder, context: TrialContext
) -> Generator[EpochReport]:
    """The experiment's run, its files published as they are written.

    Before the last epoch is yielded, which ends the trial, the figures have been computed.
    """
    run = experiment.run(
        context.loader_workers,
        context.checkpoint_every_s,
        durable_epochs=context.durable_epochs,
        on_written=folder.publish,
    )
    with closing(run):
        for report in run:
            last = report.epoch == experiment.config.epochs
            if last and context.figures is not None:
                report = _with_figures(report, experiment, context.figures)
                folder.publish()
            yield report


def _with_figures(
    report: EpochReport, experiment: Experiment, wanted: ValidationFigures
) -> EpochReport:
    """The report with the seconds that the figures took, or a note of why there are none.

    A trial that has been trained is not lost for them.
    """
    started, state = time.perf_counter(), experiment.state
    config, data = experiment.config, experiment.data
    try:
        notes = write_figures(experiment.folder, config, data, state.device, state.compute, wanted)
    except Exception as error:
        if is_device_fault(error) or is_full_disk(error):
            raise
        log.warning("no figures", exc_info=True)
        why = "not enough memory" if is_out_of_memory(error) else str(error)
        note = f"no figures of outlines, objects and probabilities: {why}"
        return replace(report, notes=(*report.notes, note))
    seconds = {"time/figures_s": time.perf_counter() - started}
    metrics = {**report.metrics, **seconds}
    return replace(report, metrics=metrics, notes=(*report.notes, *notes))


def not_measured(
    measured: Sequence[Measured],
    compute: ComputeSettings | None,
    config: TrainConfig,
    device: torch.device,
) -> list[str]:
    """What to say where the preflight measured, but nothing that serves this trial."""
    if not measured or compute is not None or not is_free(config):
        return []
    rule = resolved(config, device)
    kinds = ", ".join(sorted({found.device for found in measured}))
    return [
        f"computes on {device_kind(device)} by rule, with {rule.precision} and "
        f"{rule.memory_format}: such steps were not measured (measured: {kinds})"
    ]


def epoch_report(
    report: EpochReport, experiment: Experiment, context: TrialContext
) -> EpochFinished:
    """The report of an epoch; the first one also has the model's latency and size."""
    system = {"system/micro_batch": experiment.micro_batch, **_peak_memory(context)}
    model = experiment.model_figures() if report.epoch == 1 else {}
    return EpochFinished(report.epoch, {**report.metrics, **model, **system})


@cache
def _settle() -> None:
    """Hide what this process has imported from the garbage collector, once.

    After each trial it then looks at the trial's own objects only: measured, 0.2 s less a trial.
    """
    gc.collect()
    gc.freeze()


def _release_memory(stopped_at: TracebackType | None) -> None:
    """Free the model before the next trial builds its own in this process.

    Ray stops a trial by an exception, and the exception's frames hold all of its objects.
    """
    traceback.clear_frames(stopped_at)
    # Compiled code serves the next model of equal shape; a CUDA graph holds its memory and fits
    # only the weights that it was recorded with.
    if _CUDA_GRAPHS in sys.modules:
        torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def data_on_this_node(data: Dataset, config: TrainConfig) -> Dataset:
    """The driver's data set where its cache can be read, else this node's own copy."""
    try:
        data["train"].window(0, 0, 0, 1, 1)
    except DataError:
        data = open_dataset(config.data, to_train=False)  # the driver has checked it
    return data


def _peak_memory(context: TrialContext) -> dict[str, float]:
    """Memory of the process, and the GPU's peak where there is one, in GiB."""
    peak = {"system/memory_gib": psutil.Process(os.getpid()).memory_info().rss / 2**30}
    if context.device == "cuda":
        peak["system/gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return peak
