"""Which steps a sweep's preflight times, and what the plan becomes by that.

On the CPU they run in processes side by side, as the trials will; on a GPU in the process that
has it, one at a time. What the recipe sets itself is not chosen, and what it searches is timed for
every value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from sweeps.driver.plan import SweepPlan, with_budget
from sweeps.execution.ray_session import worker_environment
from sweeps.preflight.choices.combinations import (
    PATIENCE_S,
    affordable,
    describe,
    measure,
    ways_to_share,
)
from sweeps.preflight.choices.compiling import judged_on_cpu
from sweeps.preflight.choices.probes import ProbeFailedError, ProbeLostError, Probes
from sweeps.preflight.choices.stepper import Stepper
from sweeps.preflight.choices.subjects import Subject
from sweeps.preflight.contention import most_productive
from sweeps.preflight.estimate import trials_per_gpu
from sweeps.preflight.overheads import Overheads
from sweeps.preflight.step_cost import Size, StepCost
from unetexp.compute.device import device_kind
from unetexp.compute.measured import Measured, wording
from unetexp.compute.settings import ComputeSettings
from unetexp.data import Dataset
from unetexp.errors import ConfigError
from unetexp.system.machine import available_memory_bytes
from unetexp.training.config import TrainConfig

_CPU = torch.device("cpu")
_LIMIT_S = 40.0  # for a single step of one size: then the processes are ended
_MOST_PROCESSES = 4  # where the number of trials at once is given and not chosen
_ROUND_S = 30.0  # for one step of each way, which are timed whatever patience there is


def shares_are_free(plan: SweepPlan) -> bool:
    """Whether the number of trials at once is to be chosen: on this machine's CPU, not given."""
    budget, placement = plan.recipe.budget, plan.placement
    given = budget.max_concurrent or budget.cpus_per_trial
    return not (given or placement.gpus or plan.options.address)


def probes_needed(plan: SweepPlan, wanted: Sequence[Subject]) -> int:
    """How many processes train side by side for the measurement, at most; 0 for none."""
    placement = plan.placement
    if placement.device != "cpu":
        return 0
    if shares_are_free(plan):
        return max(ways_to_share(placement.cpus, 0, 1, plan.recipe.budget.trials))
    if not any(one.is_open(_CPU) for one in wanted):
        return 0
    on_a_node = placement.max_concurrent * placement.ranks // placement.nodes
    return max(1, min(on_a_node, placement.cpus // placement.nodes, _MOST_PROCESSES))


def measure_on_cpu(
    plan: SweepPlan,
    data: Dataset,
    wanted: Sequence[Subject],
    probes: Probes,
    cost: StepCost,
    overheads: Overheads,
    log: Callable[[str], None],
) -> tuple[Measured, ...]:
    """Measure in `probes`; the first of `wanted` decides how many trials run at once.

    Nothing where a process dies: a line says so, and the rule stands.
    """
    full = Size(wanted[0].config.augment.crop_px, cost.micro_batch)
    if shares_are_free(plan):
        free = available_memory_bytes()
        trials = plan.recipe.budget.trials
        shares = ways_to_share(plan.placement.cpus, cost.peak_bytes, free, trials)
    else:
        shares = {probes_needed(plan, wanted): plan.placement.threads}
    found: list[Measured] = []
    for one in wanted:
        model = one.model(_CPU)
        ways = len(model.candidates) * len(shares)
        size = affordable(full, cost.step_s, ways, _ROUND_S / len(wanted))
        beside_s = _beside_s(one.config, data, cost, overheads) * size.pixels / full.pixels
        time_step = _in_probes(probes, log)
        try:
            probes.load(one.config, data, max(shares), _LIMIT_S)
            measured = measure(
                device_kind(_CPU),
                model,
                shares,
                size,
                time_step,
                beside_s=beside_s,
                patience_s=PATIENCE_S / len(wanted),
            )
        except ProbeLostError as error:
            log(f"settings not measured: {error}; they follow the rule")
            return ()
        if measured is None:
            continue
        environment = worker_environment(plan.placement)
        measured = judged_on_cpu(measured, one.config, data, environment)
        found.append(measured)
        label = f"{' and '.join(one.architecture)}: " if len(wanted) > 1 else ""
        for line in describe(measured, plan.placement.cpus, full):
            log(f"{label}{line}")
        shares = {count: n for count, n in shares.items() if count == found[0].at_once}
    return tuple(found)


def measure_on_gpu(
    wanted: Sequence[Subject],
    data: Dataset,
    device: torch.device,
    cost: StepCost,
    threads: int,
    workers: int,
) -> tuple[Measured, ...]:
    """Measure on a GPU that this process has alone; what fails there is left out."""
    found = []
    for one in wanted:
        model = one.model(device)
        if not one.is_open(device):
            continue
        full = Size(one.config.augment.crop_px, cost.micro_batch)
        patience_s = PATIENCE_S / len(wanted)
        with Stepper(one.config, data, device, workers) as stepper:
            measured = measure(
                device_kind(device),
                model,
                {1: threads},
                full,
                _here(stepper),
                patience_s=patience_s,
            )
        if measured is not None:
            found.append(measured)
    return tuple(found)


def with_choices(plan: SweepPlan, measured: tuple[Measured, ...]) -> SweepPlan:
    """The plan with what was measured, and so many trials at once as were chosen."""
    plan = replace(plan, measured=measured)
    if not measured or not shares_are_free(plan):
        return plan
    return with_budget(plan, max_concurrent=measured[0].at_once)


def packed(
    plan: SweepPlan,
    step_cost: StepCost,
    throughput: Mapping[int, float],
    log: Callable[[str], None],
) -> SweepPlan:
    """The plan with as many trials on a GPU as train most together, of those its memory holds."""
    if step_cost.device_bytes is None:
        log("--gpus-per-trial auto: trials run on the CPU here, so the setting has no effect")
        return plan
    count = trials_per_gpu(step_cost)
    memory = (
        f"a trial takes {step_cost.peak_bytes / 2**30:.1f} of "
        f"{step_cost.device_bytes / 2**30:.1f} GiB"
    )
    if throughput:
        rates = ", ".join(f"{rate:.3g} ({n})" for n, rate in throughput.items())
        memory += f", up to {count} fit; images a second of so many together: {rates}"
        count = most_productive(throughput)
    elif count > 1:
        memory += ", and how much trials train together could not be measured"
    log(f"--gpus-per-trial auto: {memory}, so {count} share{'s' if count == 1 else ''} a GPU")
    return with_budget(plan, gpus_per_trial=1 / count)


def as_trials_compute(cost: StepCost, measured: Sequence[Measured], crop_px: int) -> StepCost:
    """`cost` with the chosen settings and, on the CPU, beside as many trials as run at once."""
    if not measured:
        return cost
    best = measured[0]
    size, full = Size(best.side_px, best.images), Size(crop_px, cost.micro_batch)
    step_s = best.best.step_s * full.pixels / size.pixels
    val_s = cost.val_s * step_s / cost.step_s
    return replace(cost, step_s=step_s, val_s=val_s, extrapolated=size != full)


def _beside_s(config: TrainConfig, data: Dataset, cost: StepCost, overheads: Overheads) -> float:
    """What a trial takes beside training and validation, in seconds a step.

    Validation computes as training does: it is counted as so many more steps.
    """
    steps = config.steps_per_epoch(len(data["train"])) * config.accumulation
    validating = len(data["val"]) * cost.val_s / (steps * cost.step_s)
    beside = overheads.epoch_s + overheads.trial_s / config.epochs
    return beside / (steps * (1 + validating))


def _in_probes(probes: Probes, log: Callable[[str], None]) -> Callable[..., float]:
    """Steps timed in `probes`; each failure is told once."""
    told: set[str] = set()

    def time_step(settings: ComputeSettings, at_once: int, threads: int, size: Size) -> float:
        try:
            return probes.step_s(settings, size, at_once, threads, _LIMIT_S)
        except ProbeFailedError as error:
            failure = f"{wording(settings)} fails here: {error}"
            if failure not in told:
                told.add(failure)
                log(failure)
            return math.inf

    return time_step


def _here(stepper: Stepper) -> Callable[..., float]:
    def time_step(settings: ComputeSettings, at_once: int, threads: int, size: Size) -> float:
        try:
            return stepper.seconds(settings, size)
        except (RuntimeError, ConfigError):
            torch.cuda.empty_cache()
            return math.inf

    return time_step
