"""One trial in a Ray worker: config -> training -> a report an epoch.

A report is an epoch's metrics with the key `epoch`, a sentence for the user with the key `said`,
or the trial's end with the key `failure`: a deterministic error is reported, not raised, because
Ray would run it again.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import psutil
import torch
from ray import tune

from sweeps.state.storage import Storage, is_full_disk
from unetexp.data import Dataset, open_dataset
from unetexp.errors import DataError, NonFiniteLossError
from unetexp.training.config import TrainConfig, decode_config
from unetexp.training.experiment import Experiment
from unetexp.training.loop import EpochReport

FAILURE, SAID = "failure", "said"
FULL_DISK = "full_disk"
CHECKPOINT_EVERY_S = 20.0


class RanksLostError(RuntimeError):
    """A process of the trial died: not the configuration's fault, it is to be run again."""


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


# (trial, config, accumulation, plan): trains and reports
Train = Callable[[str, TrainConfig, int, TrialContext], None]


def run_trial(config: dict[str, Any], plan: TrialContext, train: Train | None = None) -> None:
    """Train `config["config"]` as trial `config["trial"]`, from its checkpoint if it has one.

    `train` stands in for training in this process. A lost process of a trial is raised: Ray then
    runs the trial again.
    """
    logging.captureWarnings(True)
    torch.set_num_threads(plan.threads)
    try:
        _train_in_memory(config["trial"], decode_config(config["config"]), plan, train or _train)
    except RanksLostError:
        raise
    except NonFiniteLossError as error:
        tune.report({FAILURE: "nan", "error": str(error)})
    except Exception as error:
        if is_out_of_memory(error):
            tune.report({FAILURE: "oom", "error": traceback.format_exc()})
        elif is_full_disk(error):
            tune.report({FAILURE: FULL_DISK, "error": str(error)})
        else:
            tune.report({FAILURE: "error", "error": traceback.format_exc()})
    finally:
        _release_memory(sys.exc_info()[2])


def _train_in_memory(trial: str, config: TrainConfig, plan: TrialContext, train: Train) -> None:
    """Train; where memory runs out, go on with half the micro-batch and the same batch."""
    accumulation = config.accumulation
    while True:
        try:
            return train(trial, config, accumulation, plan)
        except Exception as error:
            smaller = smaller_micro_batch(config.batch_size, accumulation, plan.ranks)
            if smaller is None or not is_out_of_memory(error):
                raise
            accumulation = smaller
            _release_memory(error.__traceback__)
        micro = config.batch_size // accumulation
        tune.report({SAID: f"out of memory, goes on with micro-batches of {micro}"})


def smaller_micro_batch(batch_size: int, accumulation: int, ranks: int = 1) -> int | None:
    """The accumulation that at least halves the micro-batch, which `ranks` must divide.

    None if that is one image a rank already.
    """
    largest = batch_size // accumulation // 2
    sizes = (size for size in range(largest, 0, -1) if size % ranks == 0)
    return next((batch_size // size for size in sizes if batch_size % size == 0), None)


def _train(trial: str, config: TrainConfig, accumulation: int, plan: TrialContext) -> None:
    data = data_on_this_node(plan.data, config)
    with plan.storage.trial_folder(trial) as folder:
        device = torch.device(plan.device)
        experiment = Experiment(config, data, folder.path, device, accumulation)
        for sentence in experiment.skipped_checkpoints:
            tune.report({SAID: sentence})
        for report in experiment.run(plan.loader_workers, plan.checkpoint_every_s):
            folder.publish()
            tune.report(figures(report, experiment, plan))


def figures(report: EpochReport, experiment: Experiment, plan: TrialContext) -> dict[str, float]:
    """An epoch as it is reported; the first one also says what the model costs to use."""
    system = {"system/micro_batch": experiment.micro_batch, **_peak_memory(plan)}
    model = experiment.model_figures() if report.epoch == 1 else {}
    return {"epoch": report.epoch, **report.metrics, **model, **system}


def _release_memory(stopped_at: TracebackType | None) -> None:
    """Let go of the model before the next trial builds its own in this process.

    Ray stops a trial by an exception, and the exception's frames hold all that trial had.
    """
    traceback.clear_frames(stopped_at)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Whether the GPU's or the CPU's memory ran out."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or "can't allocate memory" in str(error)


def data_on_this_node(data: Dataset, config: TrainConfig) -> Dataset:
    """The driver's data set where its cache can be read, else this node's own copy."""
    try:
        data["train"].window(0, 0, 0, 1, 1)
    except DataError:
        data = open_dataset(config.data, to_train=False)  # the driver has judged it
    return data


def _peak_memory(plan: TrialContext) -> dict[str, float]:
    """Memory of the process, and the GPU's peak where there is one, in GiB."""
    peak = {"system/memory_gib": psutil.Process(os.getpid()).memory_info().rss / 2**30}
    if plan.device == "cuda":
        peak["system/gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return peak
