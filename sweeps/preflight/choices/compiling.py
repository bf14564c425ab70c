"""Whether torch.compile pays for a whole trial: what its steps save against what compiling takes.

Compiling may take minutes, hang, or fail for want of a C++ compiler. It is tried only for trials
long enough to win it back, in a process of its own that is ended once they could not any more, and
with an empty cache: every architecture of a search is compiled anew.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import torch

from sweeps.execution.trial import data_on_this_node
from sweeps.preflight.choices.probes import ProbeLostError, Probes
from sweeps.preflight.choices.stepper import Stepper
from sweeps.preflight.gpu_tasks import TaskLostError, in_worker
from sweeps.preflight.step_cost import Size
from unetexp.compute.compiled import CACHE
from unetexp.compute.measured import Compiling, Measured
from unetexp.compute.settings import Compile, ComputeSettings
from unetexp.data import Dataset
from unetexp.errors import ConfigError
from unetexp.training.config import TrainConfig

MODES: Mapping[str, Sequence[Compile]] = {
    "cpu": ("default",),
    "cuda": ("default", "reduce-overhead"),
}
_MOST_SAVED = {"cpu": 0.25, "cuda": 0.5}  # of a step, in good cases
# That compiling takes. On a CPU a slim U-Net of ResNet-18 was measured to take 65 s of one core.
_LEAST_S = {"cpu": 60.0, "cuda": 20.0}
_LIMIT_S = 120.0  # for compiling
_LOAD_S = 60.0  # to build the model
_ROUNDS = 3

TimeStep = Callable[[ComputeSettings], float]


def trial_steps(config: TrainConfig, images: int, size: Size, devices: int = 1) -> int:
    """The training steps of a whole trial on a split of so many `images`, as steps of `size`.

    `devices` share each of them.
    """
    pixels = config.batch_size * config.augment.crop_px**2 / devices
    return round(config.epochs * config.steps_per_epoch(images) * pixels / size.pixels)


def without_trying(device_type: str, step_s: float, steps: int) -> Compiling | None:
    """The verdict on a trial too short to win back the fastest compiling; None on a longer one."""
    gain_s, least_s = _most_gain_s(device_type, step_s, steps), _LEAST_S[device_type]
    if gain_s >= least_s:
        return None
    why = (
        f"a trial's {steps} steps take {step_s * steps:.3g} s, of which it can save some "
        f"{gain_s:.2g} s, and compiling takes at least {least_s:g} s"
    )
    return Compiling(steps, step_s, why_not=why)


def judged_on_cpu(
    measured: Measured, config: TrainConfig, data: Dataset, environment: Mapping[str, str]
) -> Measured:
    """`measured` with the verdict, unless `config` says whether to compile."""
    if config.compile != "auto":
        return measured
    step_s = measured.of_choice[0].step_s
    steps = trial_steps(config, len(data["train"]), _size(measured))
    found = without_trying("cpu", step_s, steps)
    if found is None:
        with _compiled_folder() as folder:
            cache = {**environment, CACHE: folder}
            found = _in_a_process(measured, config, data, steps, cache)
    return replace(measured, compiling=found)


def _in_a_process(
    measured: Measured,
    config: TrainConfig,
    data: Dataset,
    steps: int,
    environment: Mapping[str, str],
) -> Compiling:
    eager, size = measured.of_choice[0], _size(measured)
    limit_s = _limit_s("cpu", eager.step_s, steps)
    with Probes(1, environment) as probes:
        try:
            probes.load(config, data, 1, _LOAD_S)
            return tried(
                eager.settings,
                MODES["cpu"],
                steps,
                lambda settings: probes.step_s(settings, size, 1, eager.threads, limit_s),
            )
        except ProbeLostError:
            return _not_ended(steps, eager.step_s, limit_s)


def judged_on_gpu(
    measured: Sequence[Measured],
    configs: Sequence[TrainConfig],
    data: Dataset,
    devices: int,
    threads: int,
    workers: int,
    node: str,
) -> tuple[Measured, ...]:
    """The same for what was `measured` of `configs` on a GPU of `node`, in Ray tasks there."""
    of_model: Mapping[tuple[str | None, str], TrainConfig] = {
        (config.encoder.name, config.decoder.kind): config for config in configs
    }
    judged = []
    for each in measured:
        config = of_model[each.encoder, each.decoder]
        if config.compile == "auto":
            step_s = each.of_choice[0].step_s
            steps = trial_steps(config, len(data["train"]), _size(each), devices)
            arguments = (each, config, data, steps, threads, workers)
            found = without_trying("cuda", step_s, steps) or _in_a_task(arguments, node, step_s)
            each = replace(each, compiling=found)
        judged.append(each)
    return tuple(judged)


def _in_a_task(arguments: tuple[Any, ...], node: str, step_s: float) -> Compiling:
    steps: int = arguments[3]
    limit_s = _limit_s("cuda", step_s, steps)
    try:
        found = in_worker(_on_this_gpu, *arguments, limit_s=_LOAD_S + limit_s, node=node)
    except TaskLostError:
        return _not_ended(steps, step_s, limit_s)
    assert isinstance(found, Compiling)
    return found


def _on_this_gpu(
    measured: Measured,
    config: TrainConfig,
    data: Dataset,
    steps: int,
    threads: int,
    workers: int,
) -> Compiling:
    torch.set_num_threads(threads)
    data = data_on_this_node(data, config)
    with (
        _compiled_folder() as folder,
        Stepper(config, data, torch.device("cuda"), workers) as stepper,
    ):
        os.environ[CACHE] = folder  # of this process, which ends with the task
        return tried(
            measured.of_choice[0].settings,
            MODES["cuda"],
            steps,
            lambda settings: stepper.seconds(settings, _size(measured)),
        )


def tried(
    settings: ComputeSettings,
    modes: Sequence[Compile],
    steps: int,
    time_step: TimeStep,
    clock: Callable[[], float] = time.monotonic,
) -> Compiling:
    """Compile in each of the `modes` and time steps in turn with `settings` as they are.

    A mode finds what the one before has compiled, so the seconds of both count. Raises
    ProbeLostError where `time_step` does; where it fails, the verdict says how.
    """
    best: Compiling | None = None
    compile_s = 0.0
    eager_s = time_step(settings)  # warms up
    for mode in modes:
        compiled = replace(settings, compile=mode)
        started = clock()
        try:
            time_step(compiled)
            compile_s += clock() - started
            eager_s, step_s = _in_turns((settings, compiled), time_step)
        except ProbeLostError:
            raise
        except (RuntimeError, ConfigError) as error:
            best = best or Compiling(steps, eager_s, why_not=f"it fails here: {error}")
            break
        found = Compiling(steps, eager_s, mode, step_s, compile_s)
        if best is None or _trial_s(found) < _trial_s(best):
            best = found
    assert best is not None
    return best


def _not_ended(steps: int, step_s: float, limit_s: float) -> Compiling:
    """The verdict where compiling was ended, or its process died."""
    why = f"compiling had not ended after {limit_s:.0f} s, or its process died"
    return Compiling(steps, step_s, why_not=why)


def _limit_s(device_type: str, step_s: float, steps: int) -> float:
    """Seconds that compiling may take: in more, no trial would win it back."""
    return min(_LIMIT_S, _most_gain_s(device_type, step_s, steps))


def _compiled_folder() -> TemporaryDirectory[str]:
    # A compiler that outlives its ended process may still write there.
    return TemporaryDirectory(prefix="unetexp-compiled-", ignore_cleanup_errors=True)


def _size(measured: Measured) -> Size:
    return Size(measured.side_px, measured.images)


def _most_gain_s(device_type: str, step_s: float, steps: int) -> float:
    return _MOST_SAVED[device_type] * step_s * steps


def _trial_s(found: Compiling) -> float:
    return found.compile_s + found.steps * (found.step_s - found.eager_s)


def _in_turns(
    ways: tuple[ComputeSettings, ComputeSettings], time_step: TimeStep
) -> tuple[float, float]:
    taken = [math.inf, math.inf]
    for _ in range(_ROUNDS):
        for number, settings in enumerate(ways):
            taken[number] = min(taken[number], time_step(settings))
    return taken[0], taken[1]
