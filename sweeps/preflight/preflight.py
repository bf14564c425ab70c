"""The check before a sweep's budget is spent: everything once, small, and what it all will cost.

On the CPU it runs in this process: a Ray worker would first start and import torch, which takes
as long as the whole check of a small recipe. On GPUs it runs in a Ray task on one of them, because
a CUDA context in the driver would take that GPU's memory from the trials for hours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from sweeps.driver.plan import SweepPlan
from sweeps.execution.placement import available_cores
from sweeps.execution.ray_session import ray_up, worker_environment
from sweeps.execution.trial import data_on_this_node
from sweeps.preflight.choices.combinations import describe
from sweeps.preflight.choices.compiling import judged_on_gpu
from sweeps.preflight.choices.measured_choices import (
    as_trials_compute,
    measure_on_cpu,
    measure_on_gpu,
    packed,
    probes_needed,
    with_choices,
)
from sweeps.preflight.choices.probes import Probes
from sweeps.preflight.choices.subjects import Subject, mean_pace, slowest_of, subjects
from sweeps.preflight.disk_space import largest_sizes, needs, require_disk_space
from sweeps.preflight.estimate import describe_estimate, estimate_sweep, trials_per_gpu
from sweeps.preflight.gpu_tasks import (
    TaskLostError,
    in_worker,
    nodes_by_kind,
    throughput_in_worker,
)
from sweeps.preflight.overheads import NO_OVERHEADS, Overheads, trial_overheads
from sweeps.preflight.smoke_test import smoke_configs, smoke_test
from sweeps.preflight.step_cost import Size, StepCost, measure_step_cost
from sweeps.tracking.store import check_tracking, local_path, open_existing
from unetexp.compute.measured import Measured
from unetexp.data import Dataset
from unetexp.data.folded import rounds
from unetexp.errors import UserError
from unetexp.system.cuda_errors import is_out_of_memory
from unetexp.system.machine import available_memory_bytes, give_back_freed_memory
from unetexp.training.config import TrainConfig

_SMOKE_TEST_S, _STEP_COST_S = 60.0, 20.0
_TASK_S = 115.0  # for both in a worker, its start included
Log = Callable[[str], None]


@dataclass(frozen=True)
class DeviceChecks:
    """What was found on the device."""

    left_out: list[str]  # choices that there was no time for
    step_cost: StepCost
    overheads: Overheads = NO_OVERHEADS
    measured: tuple[Measured, ...] = ()  # on a GPU
    # images a second that so many trials train together on a GPU; empty where it was not measured
    throughput: Mapping[int, float] = field(default_factory=dict)
    node: str | None = None  # of the GPU, by Ray's id


def preflight(plan: SweepPlan, data: Dataset, log: Log) -> SweepPlan:
    """Check the planned sweep in under two minutes; returns it with its estimated time.

    What is `auto` in its settings is chosen by measurement, as is how many trials run at once on
    a CPU. They are packed if so asked.

    Raises UserError: a choice that cannot train, memory or disk that does not suffice, a tracking
    store that does not answer.
    """
    configs = smoke_configs(plan.recipe)
    slowest = slowest_of(plan.recipe, data)
    models, first = len(rounds(data)), rounds(data)[0]
    if models > 1:
        log(f"cross-validation: a trial trains {models} models, which its cost counts")
    wanted = subjects(plan.recipe, slowest, configs)
    devices = max(1, int(plan.placement.gpus_per_trial))
    images = max(1, slowest.micro_batch_size // devices)
    processes = max(1, probes_needed(plan, wanted))
    with Probes(processes, worker_environment(plan.placement)) as probes:
        require_store_and_disk_space(plan, data)  # computes little: the processes start meanwhile
        worker_s = probes.up_s()
        checks = _checked(plan, data, configs, slowest, images, wanted)
        _tell_shortages(checks, slowest, images, devices, log)
        beside = checks.overheads
        overheads = Overheads(worker_s, models * beside.trial_s, models * beside.epoch_s)
        measured = checks.measured
        if checks.step_cost.device_bytes is None and probes_needed(plan, wanted):
            measured = measure_on_cpu(plan, first, wanted, probes, checks.step_cost, overheads, log)
    full = Size(slowest.augment.crop_px, checks.step_cost.micro_batch)
    for found in checks.measured:
        for line in describe(found, plan.placement.cpus, full):
            log(f"on {found.device}: {line}")
    plan = with_choices(plan, measured)
    if plan.options.pack:
        plan = packed(plan, checks.step_cost, checks.throughput, log)
    step_cost = as_trials_compute(checks.step_cost, measured, slowest.augment.crop_px)
    pace = mean_pace(plan.recipe, measured)
    cost = estimate_sweep(plan.recipe, plan.placement, data, step_cost, overheads, pace)
    for line in describe_estimate(cost, plan.recipe, plan.placement, step_cost, overheads):
        log(line)
    return replace(plan, estimated_s=cost.expected_s(plan.recipe))


def _tell_shortages(
    checks: DeviceChecks, slowest: TrainConfig, images: int, devices: int, log: Log
) -> None:
    """Say what there was too little time or memory for."""
    if checks.left_out:
        log(f"not tried, for lack of time: {', '.join(checks.left_out)}")
    if checks.step_cost.micro_batch < images:
        micro = checks.step_cost.micro_batch * devices
        log(
            f"not enough memory for micro-batches of {images * devices} images; {micro} fit. "
            "Trials adapt by themselves; to set it for all of them, with the same batch size: "
            f"--set accumulation={slowest.batch_size // micro}"
        )
    free = available_memory_bytes()
    if checks.step_cost.device_bytes is None and checks.step_cost.peak_bytes > free:
        log(
            f"a trial is expected to take {checks.step_cost.peak_bytes / 2**30:.1f} GiB of memory, "
            f"and {free / 2**30:.1f} are free: it may be killed. Scale large images, such as with "
            "--set data.resize=1024, or choose a smaller augment.crop_px, batch_size or model."
        )


def require_store_and_disk_space(plan: SweepPlan, data: Dataset, ended: int = 0) -> None:
    """The tracking store answers, and the disks hold what the sweep will write; else UserError.

    So many of its trials have `ended` under an earlier driver.
    """
    check_tracking(plan.tracking_uri)
    wanted = needs(
        largest_sizes(smoke_configs(plan.recipe).values(), data),
        plan.storage,
        _artifacts(plan.tracking_uri),
        trials=plan.recipe.budget.trials,
        at_once=plan.placement.max_concurrent,
        epochs=plan.recipe.base.epochs,
        kept=plan.recipe.most_kept_models,
        ended=ended,
        folds=len(data.folds),
    )
    require_disk_space(wanted)


def check_on_device(
    configs: Mapping[str, TrainConfig],
    slowest: TrainConfig,
    images: int,
    data: Dataset,
    device_name: str,
    threads: int,
    at_once: int,
    wanted: Sequence[Subject] = (),
    loader_workers: int = 0,
) -> DeviceChecks:
    """The part that computes, on the device that trials will have.

    On a GPU the settings of `wanted` are chosen here, too.
    """
    device = torch.device(device_name)
    data = data_on_this_node(data, slowest)
    models, data = len(rounds(data)), rounds(data)[0]
    with _computing(threads):
        measured = _measured(slowest, data, device, images, models)
        left_out = smoke_test(configs, data, device, _SMOKE_TEST_S, at_once)
        beside = trial_overheads(slowest, data, device, measured.val_s)
        chosen: tuple[Measured, ...] = ()
        if device.type == "cuda":
            chosen = measure_on_gpu(wanted, data, device, measured, threads, loader_workers)
        return DeviceChecks(left_out, measured, Overheads(0.0, *beside), chosen)


def _measured(
    config: TrainConfig, data: Dataset, device: torch.device, images: int, models: int
) -> StepCost:
    try:
        return measure_step_cost(config, data, device, images, _STEP_COST_S, models)
    except Exception as error:
        if not is_out_of_memory(error):
            raise UserError(
                f"the base configuration does not train at full size: {type(error).__name__}: "
                f"{error}"
            ) from error
        raise UserError(
            f"there is not enough memory for a single crop of {config.augment.crop_px} px, nor for "
            "a validation image. Lower augment.crop_px or batch_size, choose a smaller encoder or "
            "decoder.kind=slim, or shrink the images."
        ) from None


def _checked(
    plan: SweepPlan,
    data: Dataset,
    configs: Mapping[str, TrainConfig],
    slowest: TrainConfig,
    images: int,
    wanted: Sequence[Subject],
) -> DeviceChecks:
    placement = plan.placement
    arguments = (configs, slowest, images, data, placement.device, placement.threads)
    if placement.device == "cpu":
        return check_on_device(*arguments, at_once=min(placement.max_concurrent, available_cores()))
    shared = replace(placement, gpus_per_trial=0.5) if plan.options.pack else placement
    devices = max(1, int(placement.gpus_per_trial))

    def check(node: str) -> DeviceChecks:
        checks = check_in_worker(*arguments, 1, wanted, placement.loader_workers, node=node)
        threads, workers = placement.threads, placement.loader_workers
        of = [one.config for one in wanted]
        judged = judged_on_gpu(
            checks.measured, of, rounds(data)[0], devices, threads, workers, node
        )
        return replace(checks, measured=judged, node=node)

    with ray_up(shared, plan.options.address):
        checks = on_every_kind(check, nodes_by_kind())
        if plan.options.pack and trials_per_gpu(checks.step_cost) > 1:
            found = throughput_in_worker(
                slowest,
                rounds(data)[0],
                checks.step_cost,
                placement.threads,
                checks.measured[0].best.settings if checks.measured else None,
                checks.node,
            )
            checks = replace(checks, throughput=found)
        return checks


def check_in_worker(*arguments: Any, node: str | None = None) -> DeviceChecks:
    """`check_on_device` in a Ray task with a whole GPU, however many trials will share it."""
    try:
        checks = in_worker(check_on_device, *arguments, limit_s=_TASK_S, node=node)
    except TaskLostError as error:
        raise UserError(
            f"the preflight did not finish on a GPU within {_TASK_S:g} s, or its worker died "
            f"({error}). Is the GPU, or the memory, taken by other work? "
            "(--skip-preflight starts without this check.)"
        ) from None
    assert isinstance(checks, DeviceChecks)
    return checks


def on_every_kind(check: Callable[[str], DeviceChecks], nodes: Sequence[str]) -> DeviceChecks:
    """What `check` finds on the nodes, each with another kind of GPU, side by side.

    Costs are those of the kind that holds the fewest trials, the slowest of these; `measured` is
    of all kinds, its own first.
    """
    if len(nodes) == 1:  # in this thread, which gets the signals
        return check(nodes[0])
    with ThreadPoolExecutor(len(nodes)) as pool:
        found = sorted(pool.map(check, nodes), key=_room_and_speed)
    measured: dict[tuple[str | None, ...], Measured] = {}
    for each in (one for checks in found for one in checks.measured):
        measured.setdefault((each.device, each.encoder, each.decoder), each)
    return replace(found[0], measured=tuple(measured.values()))


def _room_and_speed(checks: DeviceChecks) -> tuple[int, float]:
    return trials_per_gpu(checks.step_cost), -checks.step_cost.step_s


def _artifacts(tracking_uri: str) -> Path | None:
    """The folder of the artifacts if it is on this machine."""
    store = open_existing(tracking_uri)
    if store is not None:
        location = store.client.get_experiment(store.experiment_id).artifact_location
        return local_path(location)
    return Path(tracking_uri.removeprefix("sqlite:///")).parent  # where it is going to be


@contextmanager
def _computing(threads: int) -> Iterator[None]:
    """As many threads as a trial has, and the memory given back at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        give_back_freed_memory()
