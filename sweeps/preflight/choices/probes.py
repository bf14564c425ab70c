"""Processes that train side by side, as trials on one machine do, to time what that costs.

Each is started like a worker and imports what a worker does, which is timed, too. The driver
sends a job and gets an answer through pipes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from typing import IO, Any, Self

import torch

from sweeps.preflight.choices.stepper import Stepper
from sweeps.preflight.step_cost import Size
from unetexp.compute.settings import ComputeSettings
from unetexp.data import Dataset
from unetexp.data.sources import dataset_of_tree
from unetexp.training.config import TrainConfig, decode_config

_PROBE = (
    "import time, psutil, sweeps.execution.trial; "
    "up_s = time.time() - psutil.Process().create_time(); "
    "from sweeps.preflight.choices.probes import serve; serve(up_s)"
)
_UP_S = 60.0
_LEAVES_S = 5.0  # to remove its files; then it is killed


class ProbeLostError(RuntimeError):
    """A probe died, or took too long and was ended."""


class ProbeFailedError(RuntimeError):
    """A job raised an error in a probe; the message is that error's."""


class Probes:
    """So many processes with the `environment` of workers; ended with the `with` block."""

    def __init__(self, count: int, environment: Mapping[str, str]) -> None:
        self._started = time.monotonic()
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-c", _PROBE],
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                process_group=0,  # a signal to this process's group is for this process
            )
            for _ in range(count)
        ]
        self._up_s: list[float] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with _ended_after(_LEAVES_S, self._kill):
            for process in self._processes:
                process.communicate()  # closes its pipe, at which it removes its files and ends

    def up_s(self) -> float:
        """Seconds until a process has imported what trials need, in the mean; waits for them all.

        Those that fail or take over a minute count with the time until then.
        """
        if not self._up_s:
            try:
                with _ended_after(_UP_S, self._kill):
                    self._up_s = [_answer(process)[1] for process in self._processes]
            except ProbeLostError:
                self._up_s = [time.monotonic() - self._started]
        return sum(self._up_s) / len(self._up_s)

    def load(self, config: TrainConfig, data: Dataset, count: int, limit_s: float) -> None:
        """Have `count` of them build the model of `config`; raises ProbeLostError."""
        self.up_s()
        with _ended_after(limit_s, self._kill):
            self._ask(count, {"config": config.tree(), "data": data.tree()})

    def step_s(
        self, settings: ComputeSettings, size: Size, at_once: int, threads: int, limit_s: float
    ) -> float:
        """Seconds of a step of `at_once` processes side by side, in the mean.

        Raises ProbeFailedError where the step does, and ProbeLostError.
        """
        with _ended_after(limit_s, self._kill):
            step = {"settings": asdict(settings), "size": asdict(size), "threads": threads}
            taken = self._ask(at_once, step)
        return float(sum(taken)) / at_once

    def _ask(self, count: int, job: dict[str, Any]) -> list[Any]:
        asked = self._processes[:count]
        with suppress(BrokenPipeError):  # its missing answer tells
            for process in asked:
                _send(process.stdin, job)
        answers = [_answer(process) for process in asked]  # all: the next one is to the next job
        for failed, answer in answers:
            if failed:
                raise ProbeFailedError(answer)
        return [answer for _, answer in answers]

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()


@contextmanager
def _ended_after(limit_s: float, end: Callable[[], None]) -> Iterator[None]:
    """Call `end` unless the block is done within `limit_s`."""
    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _answer(process: subprocess.Popen[bytes]) -> tuple[bool, Any]:
    """Whether a job failed, and what came of it."""
    assert process.stdout is not None
    try:
        failed, answer = json.loads(process.stdout.readline())
    except json.JSONDecodeError:  # there is none, or a part of one
        raise ProbeLostError(
            "a process that trained for the measurement died, or took so long that it was ended"
        ) from None
    return failed, answer


def serve(up_s: float) -> None:
    """A probe's life: answer the driver's jobs until it closes the pipe."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    _send(answers, (False, up_s))
    with ExitStack() as used:
        for line in sys.stdin.buffer:
            job = json.loads(line)
            if "config" in job:
                used.close()  # the memory of the one before, first
                config, data = decode_config(job["config"]), dataset_of_tree(job["data"])
                stepper = used.enter_context(Stepper(config, data, torch.device("cpu")))
                _send(answers, (False, None))
            else:
                torch.set_num_threads(job["threads"])
                _send(answers, _outcome(stepper, job))


def _outcome(stepper: Stepper, job: dict[str, Any]) -> tuple[bool, Any]:
    try:
        settings, size = ComputeSettings(**job["settings"]), Size(**job["size"])
        return False, stepper.seconds(settings, size)
    except Exception as error:
        return True, f"{type(error).__name__}: {error}"


def _send(pipe: IO[bytes] | None, message: Any) -> None:
    assert pipe is not None
    pipe.write(json.dumps(message).encode() + b"\n")
    pipe.flush()
