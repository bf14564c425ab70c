"""What is kept of how a sweep came about: its record, and its parameters and tags in MLflow."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

from sweeps.config.recipe import Recipe, available_recipes
from sweeps.driver.plan import DEFAULT_RECIPE, SweepPlan
from sweeps.driver.prepare import PreparedSweep
from sweeps.execution.placement import hardware_summary
from sweeps.state.ledger import now_s
from sweeps.state.manifest import SweepManifest
from sweeps.tracking.store import PROJECT_ROOT

_PACKAGES = ("torch", "torchvision", "ray", "optuna", "mlflow", "pandas")


def manifest_of(prepared: PreparedSweep) -> SweepManifest:
    """What a resume is held against."""
    plan, options = prepared.plan, prepared.plan.options
    recipe = options.recipe or DEFAULT_RECIPE
    shipped = recipe in available_recipes()
    return SweepManifest(
        name=plan.name,
        recipe_asked=recipe if shipped else str(Path(recipe).absolute()),
        changes=dict(options.changes),
        data_asked=None if options.data is None else str(Path(options.data).absolute()),
        gpus=options.gpus,
        simulate_gpus=options.simulate_gpus,
        recipe=prepared.recipe_asked.tree(),
        weights=plan.recipe.base.encoder.weights,
        data_fingerprint=prepared.data.fingerprint,
        data=prepared.data.summary(),
        storage=plan.storage.root,
        estimated_s=plan.estimated_s,
        driver_starts=[now_s()],
    )


def parameters(plan: SweepPlan) -> dict[str, object]:
    """What of a sweep never changes; the number of trials may grow and is a tag."""
    recipe: Recipe = plan.recipe
    return {
        "recipe": recipe.name,
        "seed": plan.seed,
        "epochs": recipe.base.epochs,
        "searched": ", ".join(recipe.space),
        **{f"space.{path}": dimension.describe() for path, dimension in recipe.space.items()},
    }


def tags_of(prepared: PreparedSweep) -> dict[str, object]:
    """Where, on what and with which versions it was run."""
    plan, data = prepared.plan, prepared.data
    tags: dict[str, object] = {
        "sweep.trials": plan.recipe.budget.trials,
        "sweep.placement": plan.placement.describe(),
        "sweep.simulated": plan.placement.simulated,
        "data.fingerprint": data.fingerprint,
        "encoder.weights": plan.recipe.base.encoder.weights,
        **hardware_summary(),
        **_git_state(),
        **{f"version.{package}": version(package) for package in _PACKAGES},
    }
    if prepared.notices:
        tags["notices"] = "\n".join(prepared.notices)
    return tags


def _git_state() -> dict[str, object]:
    """Commit and whether the tree was dirty; empty outside a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(PROJECT_ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"git.commit": git("rev-parse", "HEAD"), "git.dirty": bool(git("status", "-s"))}
    except (OSError, subprocess.CalledProcessError):
        return {"git.commit": "not a git checkout"}
