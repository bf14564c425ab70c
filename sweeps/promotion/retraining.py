"""Trials trained again, with Ray, as a sweep of their own: nothing is searched or stopped early."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace

from rich.console import Console

from sweeps.config.recipe import Recipe
from sweeps.driver.plan import (
    SweepOptions,
    SweepPlan,
    control_folder,
    placement_at,
    storage_root,
)
from sweeps.driver.prepare import prepare
from sweeps.driver.resume import ended_trials, plan_resume
from sweeps.driver.sweep import Sweep, resume_command
from sweeps.promotion.candidates import SourceSweep
from sweeps.state.manifest import SweepManifest, has_manifest, read_manifest
from sweeps.state.progress import SweepProgress
from sweeps.state.stop_reason import StopReason
from sweeps.state.storage import Storage
from sweeps.tracking.store import TrackingStore, check_tracking
from unetexp.component import decode
from unetexp.compute.measured import Measured
from unetexp.errors import UnetexpError

_LONGEST_STEM = 80  # of a name to which a suffix is added
_SEEDS = 2**31


def new_seeds(start: int, taken: Iterable[int], count: int) -> tuple[int, ...]:
    """The first `count` seeds above `start` that are not `taken`."""
    used = {*taken}
    counted = (number % _SEEDS for number in itertools.count(start + 1))
    return tuple(itertools.islice((seed for seed in counted if seed not in used), count))


def plan_retraining(
    store: TrackingStore,
    source: SourceSweep,
    recipe: Recipe,
    suffix: str,
    tags: Mapping[str, str],
    options: SweepOptions,
) -> SweepPlan:
    """A new sweep of `recipe`, called after the source and `suffix`, with `tags` on its run.

    `options` name the GPUs, the store and the storage, by default that of the source.
    """
    name = _free_name(store, source.name, suffix)
    place = options.storage or source.run.data.tags["sweep.storage"].rpartition("/")[0]
    return SweepPlan(
        name=name,
        recipe=recipe,
        placement=placement_at(options.address, recipe.budget, options.gpus, options.simulate_gpus),
        tracking_uri=check_tracking(options.tracking_uri),
        storage=Storage(storage_root(place, name)),
        options=SweepOptions(
            recipe=f"{name}.yaml",  # there is no such file: a resume reads the manifest
            name=name,
            gpus=options.gpus,
            simulate_gpus=options.simulate_gpus,
            address=options.address,
            tracking_uri=options.tracking_uri,
            storage=place,
            preflight=False,
        ),
        measured=_measured_of(source),
        tags=tags,
    )


def earlier_retraining(
    store: TrackingStore, recipe: Recipe, tags: Mapping[str, str], options: SweepOptions
) -> tuple[SweepPlan, SweepManifest] | None:
    """The newest sweep with these `tags` that an earlier command began by the same recipe.

    None where there is none, or its folder is not on this machine.
    """
    for run in store.sweep_runs():
        if not tags.items() <= run.data.tags.items():
            continue
        name = run.data.tags["sweep.name"]
        control = control_folder(Storage(run.data.tags["sweep.storage"]), name)
        if not has_manifest(control):
            continue
        if decode(Recipe, read_manifest(control).recipe) == recipe:
            own = replace(options, recipe=None, changes={}, data=None, name=None, storage=None)
            return plan_resume(name, replace(own, warm_start=None, preflight=False, pack=False))
    return None


def is_finished(store: TrackingStore, plan: SweepPlan) -> bool:
    """Whether all trials of an earlier sweep ended for good, and MLflow has their results."""
    if store.sweep_run(plan.name).info.status != "FINISHED":
        return False
    return ended_trials(plan) >= plan.recipe.budget.trials


def train_again(
    plan: SweepPlan,
    console: Console,
    *,
    manifest: SweepManifest | None = None,
    to_continue: str | None = None,
) -> SweepProgress:
    """Run the planned sweep, or go on with the one of the manifest; returns its progress.

    `to_continue` is the command that is printed when it is interrupted. Raises KeyboardInterrupt at
    a signal, once the runs are closed, and UnetexpError where nothing was trained to its end.
    """
    command = to_continue or resume_command(plan)
    prepared = prepare(plan, started=True)
    sweep = Sweep.resume(prepared, manifest) if manifest else Sweep.start(prepared)
    view = sweep.view(console)
    with view:
        sweep.run(view)
    if sweep.interrupted:
        console.print(f"sweep {plan.name} keeps what it has; to continue: {command}")
        raise KeyboardInterrupt
    if sweep.controller.halt_reason is not None:
        raise UnetexpError(
            f"sweep {plan.name} ended early, and nothing was promoted: "
            f"{sweep.controller.halt_reason}\nTo continue: {command}"
        )
    if not sweep.progress.count(StopReason.COMPLETED):
        raise UnetexpError(
            f"sweep {plan.name}: no training was completed, so nothing was promoted. Its runs in "
            "MLflow say why."
        )
    return sweep.progress


def _measured_of(source: SourceSweep) -> tuple[Measured, ...]:
    """What the source's preflight measured, so that its trials are trained again as they were.

    Nothing where its folder is not on this machine: each run records that a rule chose.
    """
    control = control_folder(Storage(source.run.data.tags["sweep.storage"]), source.name)
    return read_manifest(control).measured if has_manifest(control) else ()


def _free_name(store: TrackingStore, sweep: str, suffix: str) -> str:
    taken = {run.data.tags["sweep.name"] for run in store.sweep_runs()}
    stem = f"{sweep[:_LONGEST_STEM]}-{suffix}"
    numbered = (f"{stem}-{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain([stem], numbered) if name not in taken)
