"""One trial in a Ray worker: config -> training -> a report an epoch.

A report is either an epoch's metrics with the key `epoch`, or one with the key `failure`: a
deterministic error is reported, not raised, because Ray would run it again.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import traceback
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import psutil
import torch
from ray import tune

from sweeps.storage import Storage
from unetexp.config import TrainConfig, decode_config
from unetexp.data import Dataset, open_dataset
from unetexp.errors import DataError, NonFiniteLossError
from unetexp.experiment import Experiment

FAILURE = "failure"
CHECKPOINT_EVERY_S = 20.0


@dataclass(frozen=True)
class TrialPlan:
    """What all trials of a sweep share."""

    storage: Storage
    data: Dataset
    device: str  # cuda or cpu
    threads: int
    loader_workers: int


def run_trial(config: dict[str, Any], plan: TrialPlan) -> None:
    """Train `config["config"]` as trial `config["trial"]`, from its checkpoint if it has one."""
    logging.captureWarnings(True)
    torch.set_num_threads(plan.threads)
    try:
        _train(config["trial"], config["config"], plan)
    except NonFiniteLossError as error:
        tune.report({FAILURE: "nan", "error": str(error)})
    except torch.OutOfMemoryError as error:
        tune.report({FAILURE: "oom", "error": str(error)})
    except Exception:
        tune.report({FAILURE: "error", "error": traceback.format_exc()})
    finally:
        _release_memory(sys.exc_info()[2])


def _train(trial: str, tree: dict[str, Any], plan: TrialPlan) -> None:
    train_config = decode_config(tree)
    data = _data_on_this_node(plan.data, train_config)
    with plan.storage.trial_folder(trial) as folder:
        experiment = Experiment(train_config, data, folder.path, torch.device(plan.device))
        for report in experiment.run(plan.loader_workers, CHECKPOINT_EVERY_S):
            folder.publish()
            tune.report({"epoch": report.epoch, **report.metrics, **_peak_memory(plan)})


def _release_memory(stopped_at: TracebackType | None) -> None:
    """Let go of the model before the next trial builds its own in this process.

    Ray stops a trial by an exception, and the exception's frames hold all that trial had.
    """
    traceback.clear_frames(stopped_at)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _data_on_this_node(data: Dataset, config: TrainConfig) -> Dataset:
    """The driver's data set where its cache can be read, else this node's own copy."""
    try:
        data["train"].window(0, 0, 0, 1, 1)
    except DataError:
        data = open_dataset(config.data)
    return data


def _peak_memory(plan: TrialPlan) -> dict[str, float]:
    """Memory of the process, and the GPU's peak where there is one, in GiB."""
    peak = {"system/memory_gib": psutil.Process(os.getpid()).memory_info().rss / 2**30}
    if plan.device == "cuda":
        peak["system/gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return peak
