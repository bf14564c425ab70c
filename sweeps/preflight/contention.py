"""How much trials that share a device train together: real steps of 1, 2, ... processes, timed.

Memory alone does not tell: a model that fills the GPU's units trains no faster beside another one,
a small one leaves them idle most of the time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from sweeps.preflight.smoke_test import miniature
from unetexp.compute.settings import ComputeSettings
from unetexp.data import Dataset
from unetexp.data.sources import dataset_of_tree
from unetexp.training.config import TrainConfig, decode_config
from unetexp.training.loop import EpochReport, fit
from unetexp.training.state import TrainState

_GAIN = 1.1  # more trials at once must train so many times as much: they teach the search less
_MEASURED_S = 3.0  # for each number of processes
_PATIENCE_S = 90.0  # for all of it; what was measured by then counts
_FOREVER = 100_000  # epochs: the caller stops
_STEPS = 4  # of an epoch, which ends with validating one image
_CHILD = "from sweeps.preflight.contention import serve; serve()"
_TRAINED = "trained "  # begins an answer


def most_productive(throughput: Mapping[int, float]) -> int:
    """How many processes should share a device, of which so many train images at that rate.

    One more is taken only where it gains a tenth over the number taken so far.
    """
    best = min(throughput)
    for count in sorted(throughput):
        if throughput[count] > _GAIN * throughput[best]:
            best = count
    return best


def measure_throughput(
    config: TrainConfig,
    data: Dataset,
    device: str,
    *,
    images: int,
    most: int,
    threads: int,
    compute: ComputeSettings | None = None,
    measured_s: float = _MEASURED_S,
) -> dict[int, float]:
    """Images a second that 1, 2, ... `most` processes train together on one device.

    Each trains `config` with micro-batches of so many `images`; they share `threads`. A number is
    left out where a process ended, as when memory ran out, or where there was no time for it.
    """
    # A rate at which nothing moves costs as much and never leads to a loss that is not finite.
    optimizer = config.optimizer.model_copy(update={"lr": 1e-9})
    changes = {"optimizer": optimizer, "epochs": _FOREVER, "batch_size": images, "accumulation": 1}
    config = config.model_copy(update=changes)
    workers = max(1, threads // most) if device == "cuda" else 0
    with miniature(data, _STEPS * images, 1, 2 * config.augment.crop_px) as few:
        task = {
            "config": config.tree(),
            "data": few.tree(),
            "device": device,
            "compute": asdict(compute) if compute else None,
            "workers": workers,
            "memory": 1 / most,  # of the GPU's, at most
        }
        with _processes(task, most) as processes:
            found: dict[int, float] = {}
            for count in range(1, most + 1):
                order = f"{measured_s} {max(1, threads // count)}\n"
                rate = _rate(processes[:count], order)
                if rate is None:
                    break
                found[count] = rate
            return found


@contextmanager
def _processes(task: dict[str, Any], count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """So many processes with the task, warm; they are killed when time is up."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _CHILD],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(count)
    ]

    def kill() -> None:
        for process in processes:
            process.kill()

    timer = threading.Timer(_PATIENCE_S, kill)
    timer.start()
    try:
        _send(processes, json.dumps(task).encode() + b"\n")
        for process in processes:
            _answer(process)
        yield processes
    finally:
        timer.cancel()
        kill()
        for process in processes:
            process.communicate()


def _rate(processes: list[subprocess.Popen[bytes]], order: str) -> float | None:
    """Images a second of all that get the `order` together; None if one has ended."""
    try:
        _send(processes, order.encode())
    except BrokenPipeError:
        return None
    rates = [_answer(process) for process in processes]
    return None if None in rates else sum(rate for rate in rates if rate is not None)


def _send(processes: list[subprocess.Popen[bytes]], message: bytes) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(message)
        process.stdin.flush()


def _answer(process: subprocess.Popen[bytes]) -> float | None:
    assert process.stdout is not None
    for line in map(bytes.decode, process.stdout):
        if line.startswith(_TRAINED):
            return float(line.removeprefix(_TRAINED))
    return None


def serve() -> None:
    """One of the processes: its standard input has the task, then lines with seconds to train."""
    task = json.loads(sys.stdin.buffer.readline())
    config, data = decode_config(task["config"]), dataset_of_tree(task["data"])
    device = torch.device(task["device"])
    if device.type == "cuda" and task["memory"] < 1:
        torch.cuda.set_per_process_memory_fraction(task["memory"])
    compute = ComputeSettings(**task["compute"]) if task["compute"] else None
    state = TrainState(config, data, device, compute)
    steps = config.steps_per_epoch(len(data["train"]))
    reports = fit(config, data, state, workers=task["workers"])
    next(reports)  # warms up
    print(_TRAINED, 0.0, flush=True)
    for line in sys.stdin.buffer:
        seconds, threads = line.split()
        torch.set_num_threads(int(threads))
        epochs = _epochs_a_second(reports, float(seconds))
        print(_TRAINED, epochs * steps * config.batch_size, flush=True)


def _epochs_a_second(reports: Iterator[EpochReport], seconds: float) -> float:
    started, epochs = time.perf_counter(), 0
    while epochs == 0 or time.perf_counter() - started < seconds:
        next(reports)  # ends with reading a figure off the device
        epochs += 1
    return epochs / (time.perf_counter() - started)
