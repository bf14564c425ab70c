"""The provenance of a sweep: its manifest, and its parameters and tags in MLflow."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from sweeps.config.loading import lasting_name
from sweeps.config.recipe import Recipe
from sweeps.driver.plan import DEFAULT_RECIPE, SweepPlan
from sweeps.driver.prepare import PreparedSweep
from sweeps.execution.placement import available_cores
from sweeps.state.ledger import now_s
from sweeps.state.manifest import SweepManifest
from sweeps.tracking.store import PROJECT_ROOT
from sweeps.tracking.tracker import WEIGHTS_FROM
from unetexp.models.weights.sources import weights_provenance
from unetexp.system.machine import total_memory_bytes

_PACKAGES = ("torch", "torchvision", "ray", "optuna", "mlflow", "pandas")


def manifest_of(prepared: PreparedSweep) -> SweepManifest:
    """The manifest of a new sweep, with which a resume is compared."""
    plan, options = prepared.plan, prepared.plan.options
    return SweepManifest(
        name=plan.name,
        recipe_asked=lasting_name(options.recipe or DEFAULT_RECIPE),
        changes=dict(options.changes),
        data_asked=_lasting(options.data),
        gpus=options.gpus,
        simulate_gpus=options.simulate_gpus,
        recipe=prepared.recipe_asked.tree(),
        weights=plan.recipe.base.encoder.weights,
        encoder_weights=dict(prepared.weights.weights),
        added_space={path: some.tree() for path, some in prepared.weights.added.items()},
        data_fingerprint=prepared.data.fingerprint,
        data=prepared.data.summary(),
        storage=plan.storage.root,
        estimated_s=plan.estimated_s,
        measured=plan.measured,
        driver_starts=[now_s()],
    )


def _lasting(place: str | None) -> str | None:
    """The data's place as it is found again from another folder."""
    if place is None or "://" in place or not Path(place).exists():
        return place  # none, a URI, or a kind
    return str(Path(place).absolute())


def parameters(plan: SweepPlan) -> dict[str, object]:
    """The settings of a sweep that never change; the number of trials may grow and is a tag."""
    recipe: Recipe = plan.recipe
    return {
        "recipe": recipe.name,
        "seed": plan.seed,
        "epochs": recipe.base.epochs,
        "searched": ", ".join(recipe.space),
        **{f"space.{path}": dimension.describe() for path, dimension in recipe.space.items()},
    }


def tags_of(prepared: PreparedSweep) -> dict[str, object]:
    """Tags of the sweep: placement, data, hardware, commit, versions, warnings."""
    plan, data = prepared.plan, prepared.data
    tags: dict[str, object] = {
        "sweep.trials": plan.recipe.budget.trials,
        "sweep.placement": plan.placement.describe(),
        "sweep.simulated": plan.placement.simulated,
        "data.fingerprint": data.fingerprint,
        "data.understood": prepared.understood,
        "encoder.weights": plan.recipe.base.encoder.weights,
        **plan.tags,
        **_initial_weights(plan.recipe),
        **hardware_tags(),
        **_git_state(),
        **{f"version.{package}": version(package) for package in _PACKAGES},
    }
    if plan.measured:
        tags["sweep.measured"] = "\n".join(found.describe() for found in plan.measured)
    if prepared.warnings:
        tags["notices"] = "\n".join(prepared.warnings)
    return tags


def _initial_weights(recipe: Recipe) -> dict[str, str]:
    """Where the weights of every encoder come from, a line for each if there are several."""
    encoders = recipe.encoders()
    found = {encoder.full_name: weights_provenance(encoder).record() for encoder in encoders}
    tags: dict[str, list[str]] = {}
    for name, record in found.items():
        for field, value in record.items():
            line = f"{name}: {value}" if len(found) > 1 else value
            tags.setdefault(f"{WEIGHTS_FROM}{field}", []).append(line)
    return {tag: "\n".join(lines) for tag, lines in tags.items()}


def hardware_tags() -> dict[str, str]:
    """The machine, as tags of the sweep."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "hardware.host": platform.node(),
        "hardware.cpu": f"{available_cores()} cores, {platform.machine()}",
        "hardware.memory_gib": f"{total_memory_bytes() / 2**30:.1f}",
        "hardware.gpus": ", ".join(gpus) or "none",
    }


def _git_state() -> dict[str, object]:
    """Commit and whether the tree was dirty; `git.commit` says so outside a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(PROJECT_ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"git.commit": git("rev-parse", "HEAD"), "git.dirty": bool(git("status", "-s"))}
    except (OSError, subprocess.CalledProcessError):
        return {"git.commit": "not a git checkout"}
