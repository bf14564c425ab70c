"""A sweep that has been checked but not started: what `--dry-run` prints."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from sweeps.config.budget import Budget
from sweeps.config.checks import check_name
from sweeps.config.loading import load_recipe
from sweeps.config.recipe import Recipe
from sweeps.driver.growth import Growth
from sweeps.execution.cluster import survey
from sweeps.execution.placement import Placement, place, place_on_cluster
from sweeps.search.asha import milestones
from sweeps.state.storage import Storage
from sweeps.text import count
from sweeps.tracking.store import PROJECT_ROOT, check_tracking, open_existing
from sweeps.tracking.tracker import Tracker
from unetexp.compute.device import require_usable_gpus
from unetexp.compute.measured import Measured
from unetexp.tracking.server import public_uri

SWEEPS = PROJECT_ROOT / "sweep_runs"
DEFAULT_RECIPE = "quickstart"


@dataclass(frozen=True)
class SweepOptions:
    """What the command line asks for."""

    recipe: str | None = None  # quickstart, or the resumed sweep's
    changes: Mapping[str, Any] = field(default_factory=dict)  # dotted paths of the recipe
    data: str | None = None
    name: str | None = None
    gpus: int | None = None
    simulate_gpus: int | None = None
    tracking_uri: str | None = None
    storage: str | None = None
    address: str | None = None
    warm_start: str | None = None
    preflight: bool = True
    pack: bool = False  # run as many trials on a GPU as train most together


@dataclass(frozen=True)
class SweepPlan:
    """Everything a sweep needs to start."""

    name: str
    recipe: Recipe
    placement: Placement
    tracking_uri: str
    storage: Storage
    options: SweepOptions = SweepOptions()
    estimated_s: float | None = None  # wall time, once a preflight has measured
    measured: tuple[Measured, ...] = ()  # steps, one for each kind of device and of model
    tags: Mapping[str, str] = field(default_factory=dict)  # of its run: what it is for
    growth: Growth | None = None  # of its space, at this resume

    @property
    def seed(self) -> int:
        """The seed of proposals, weights, data order and augmentation."""
        return self.recipe.base.seed

    @property
    def control(self) -> Path:
        """Where the driver keeps the ledger."""
        return control_folder(self.storage, self.name)


def plan_sweep(options: SweepOptions) -> SweepPlan:
    """Check everything that can be checked without data, weights or Ray; creates nothing."""
    recipe = load_recipe(options.recipe or DEFAULT_RECIPE, options.changes, options.data)
    name = options.name or f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    check_name(name)
    store = open_existing(options.tracking_uri)
    if store is not None:
        Tracker(store).require_free(name)
    return SweepPlan(
        name=name,
        recipe=recipe,
        placement=placement_at(options.address, recipe.budget, options.gpus, options.simulate_gpus),
        tracking_uri=check_tracking(options.tracking_uri),
        storage=Storage(storage_root(options.storage, name)),
        options=options,
    )


def placement_at(
    address: str | None, budget: Budget, gpus: int | None, simulate_gpus: int | None
) -> Placement:
    """The placement on the nodes of the cluster at `address`, or on this machine without one."""
    if address is None:
        if gpus != 0 and simulate_gpus is None:
            require_usable_gpus()
        return place(budget, gpus, simulate_gpus)
    return place_on_cluster(budget, gpus, simulate_gpus, survey(address))


def with_budget(plan: SweepPlan, **settings: float) -> SweepPlan:
    """The plan with these settings of its budget, as if they had been asked for."""
    budget = plan.recipe.budget.model_copy(update=settings)
    asked = {f"budget.{name}": value for name, value in settings.items()}
    options = replace(plan.options, changes={**plan.options.changes, **asked})
    return replace(
        plan,
        recipe=plan.recipe.model_copy(update={"budget": budget}),
        placement=placement_at(options.address, budget, options.gpus, options.simulate_gpus),
        options=options,
    )


def control_folder(storage: Storage, name: str) -> Path:
    """Where a sweep's ledger is: with its trials, or on this machine if the storage is remote."""
    return SWEEPS / name if storage.is_remote else Path(storage.root)


def storage_root(place: str | None, name: str) -> str:
    """The sweep's own place below `--storage`, absolute."""
    if place is not None and "://" in place:
        return f"{place.rstrip('/')}/{name}"
    return str((Path(place).expanduser().absolute() if place else SWEEPS) / name)


def describe(plan: SweepPlan) -> str:
    """The whole plan as text."""
    recipe, budget = plan.recipe, plan.recipe.budget
    searched = [
        f"  {path}: {dimension.describe()}{_condition(dimension.when)}"
        for path, dimension in recipe.space.items()
    ]
    points = [f"  {', '.join(f'{p}={v}' for p, v in point.items())}" for point in recipe.points]
    lines = [
        f"Sweep {plan.name}" + (" (simulated)" if plan.placement.simulated else ""),
        recipe.description,
        "",
        "Base configuration",
        *("  " + line for line in yaml.safe_dump(recipe.base.tree(), sort_keys=False).splitlines()),
        "",
        "Search space",
        *(searched or ["  nothing is searched"]),
        *(["", "Grown", *(f"  {line}" for line in plan.growth.describe())] if plan.growth else []),
        *(["", "Tried first", *points] if points else []),
        "",
        *(
            []
            if recipe.goals.usual
            else ["Objective" + "s" * recipe.goals.several, f"  {recipe.goals.describe()}", ""]
        ),
        "Budget",
        f"  {budget.trials} trials of {recipe.base.epochs} epochs, seed {plan.seed}",
        f"  {f'at most {budget.time}' if budget.time else 'no time limit'}",
        *([f"  {_converging(budget)}"] if budget.stop_when else []),
        *([f"  {_confirming(recipe)}"] if budget.confirm else []),
        f"  {_stopping(recipe)}",
        f"  {_keeping(recipe)}",
        f"  {plan.placement.describe()}",
        "",
        "Promotion gates",
        f"  {recipe.promotion.describe()}",
        "",
        "Places",
        f"  tracking: {public_uri(plan.tracking_uri)}",
        f"  storage:  {plan.storage.root}",
    ]
    return "\n".join(lines)


def _condition(when: Mapping[str, Any]) -> str:
    conditions = [
        f"{path} is {' or '.join(map(str, wanted)) if isinstance(wanted, list) else wanted}"
        for path, wanted in when.items()
    ]
    return f" (when {' and '.join(conditions)})" if conditions else ""


def _converging(budget: Budget) -> str:
    return (
        "ends early once the trials that are left are unlikely to gain "
        f"{budget.min_gain:g} points (budget.stop_when: converged)"
    )


def _confirming(recipe: Recipe) -> str:
    budget = recipe.budget
    return (
        f"then the best {budget.confirm} with {count(budget.confirm_seeds, 'new seed')} each: "
        f"{count(budget.confirming, 'training')} of {recipe.base.epochs} epochs (budget.confirm)"
        + (", fewer where some are clearly behind (budget.race)" if budget.race else "")
    )


def _keeping(recipe: Recipe) -> str:
    budget = recipe.budget
    if budget.kept_models == budget.trials:
        return "the weights of all trials are kept"
    front = " and those of the Pareto front" if recipe.goals.several else ""
    return (
        f"the weights of the best {budget.keep_models} trials{front} are kept, the others' removed"
    )


def _stopping(recipe: Recipe) -> str:
    if not recipe.asha.enabled:
        return "no early stopping"
    factor = recipe.asha.reduction_factor
    if recipe.asha.grace_time is not None:
        return (
            f"early stopping (ASHA) by time: after {recipe.asha.grace_time} and each time "
            f"{factor:g} times as long a trial continues if it is among the best 1/{factor:g}"
            + (f" of its {recipe.asha.bracket_by}" if recipe.asha.bracket_by else "")
        )
    epochs = recipe.base.epochs
    grace = recipe.grace_epochs
    rungs = milestones(grace, epochs, recipe.asha.reduction_factor)
    if not rungs:
        return f"no early stopping: the grace period of {grace} epochs is the whole trial"
    listed = ", ".join(map(str, rungs))
    front = ", or on the Pareto front" if recipe.goals.several else ""
    return (
        f"early stopping (ASHA) after epoch {listed}: a trial continues if it is among the best "
        f"1/{recipe.asha.reduction_factor:g} so far"
        + (f" of its {recipe.asha.bracket_by}" if recipe.asha.bracket_by else "")
        + front
    )
