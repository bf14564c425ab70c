"""A sweep from its plan to its last line: data, weights, records, trials, results."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version

import yaml

from sweeps.conductor import Conductor
from sweeps.hardware import hardware_summary
from sweeps.ledger import FILE, Event, Ledger
from sweeps.plan import Plan
from sweeps.publishing import KEPT_CHECKPOINTS, Publisher
from sweeps.recipe import Recipe
from sweeps.runner import private_folder, ray_up, run_trials
from sweeps.server import public_uri
from sweeps.store import PROJECT_ROOT, open_store
from sweeps.tally import Tally
from sweeps.tracking import Tracker
from sweeps.trial import TrialPlan
from unetexp.data import Dataset, open_dataset
from unetexp.errors import UserError
from unetexp.weights import resolve_weights

_PACKAGES = ("torch", "torchvision", "ray", "optuna", "mlflow", "pandas")
_LAST_POINTS_S = 600.0  # how long the end of a sweep waits for a slow tracking store
_INTERRUPT_S = 8.0
_RECORD = "sweep.json"


@dataclass(frozen=True)
class Prepared:
    """A planned sweep with its data at hand and its weights settled."""

    plan: Plan
    data: Dataset
    notices: tuple[str, ...]  # to be said aloud and recorded


def prepare(plan: Plan, on_progress: Callable[[str, int, int], None] | None = None) -> Prepared:
    """Open the data and settle the weights, once for all trials; nothing of the sweep is made.

    Raises DataError and WeightsUnavailableError.
    """
    data = open_dataset(plan.recipe.base.data, on_progress=on_progress)
    weights = resolve_weights(plan.recipe.base.encoder)
    notices = [*data.notes, *filter(None, [weights.notice])]
    if weights.encoder.weights == "none" and "encoder.freeze" in plan.recipe.space:
        notices.append(
            "encoder.freeze is searched while the encoder starts from random weights: a frozen "
            "part then learns nothing. Give pretrained weights, or --set encoder.freeze=none."
        )
    base = plan.recipe.base.model_copy(update={"encoder": weights.encoder})
    recipe = plan.recipe.model_copy(update={"base": base})
    return Prepared(replace(plan, recipe=recipe), data, tuple(notices))


class Sweep:
    """A running sweep: the conductor, its record, and those who listen."""

    def __init__(self, prepared: Prepared) -> None:
        """Make the sweep's folder and its run; UserError where a place cannot be written."""
        plan, data = prepared.plan, prepared.data
        self.plan, self.data = plan, data
        self.tally = Tally(
            plan.recipe.budget.trials, plan.recipe.base.epochs, plan.placement.max_concurrent
        )
        self.tracker = Tracker(open_store(plan.tracking_uri))
        self.tracker.require_free(plan.name)
        if (plan.control / FILE).exists():
            raise UserError(
                f"{plan.control} holds the record of a sweep named {plan.name!r} already. Choose "
                "another --name or --storage."
            )
        plan.storage.require_writable()
        private_folder(plan.control)
        record = _record(prepared)
        (plan.control / _RECORD).write_text(json.dumps(record, indent=2), encoding="utf-8")
        self.run_id = self.tracker.start_sweep(
            plan.name,
            storage=plan.storage.root,
            tags=_tags(prepared),
            params=_params(plan),
            artifacts={
                "recipe.yaml": yaml.safe_dump(plan.recipe.tree(), sort_keys=False),
                "data.json": json.dumps(data.summary(), indent=2),
            },
        )

    def run(self, view: Callable[[Event], None]) -> str:
        """Run all trials; returns how it ended: completed, time_budget, interrupted or error.

        `view` is called with every event and keeps `tally` up to date.
        """
        self.publisher = Publisher(
            self.tracker,
            self.plan.storage,
            self.plan.recipe,
            lambda text: view({"event": "said", "text": text}),
        )
        self.conductor = Conductor(
            self.plan.recipe,
            self.plan.seed,
            Ledger(self.plan.control / FILE),
            [self.publisher, view],
        )
        placement = self.plan.placement
        trial_plan = TrialPlan(
            self.plan.storage,
            self.data,
            placement.device,
            placement.threads,
            placement.loader_workers,
        )
        reason = "error"
        try:
            with ray_up(placement):
                run_trials(self.conductor, trial_plan, placement)
            reason = "time_budget" if self.conductor.halted else "completed"
        except KeyboardInterrupt:
            reason = "interrupted"
        finally:
            self._close(reason)
        return reason

    def _close(self, reason: str) -> None:
        for trial in self.conductor.running:
            self.conductor.trial_ended(trial.id, "interrupted")
        best = [trial.id for trial in self.tally.ranking[:KEPT_CHECKPOINTS]]
        self.publisher({"event": "best", "trials": best})
        self.publisher(self.conductor.ledger.append("closed", reason=reason))
        self.publisher.close(_INTERRUPT_S if reason == "interrupted" else _LAST_POINTS_S)


def _record(prepared: Prepared) -> dict[str, object]:
    plan = prepared.plan
    return {
        "name": plan.name,
        "recipe": plan.recipe.tree(),
        "seed": plan.seed,
        "data_fingerprint": prepared.data.fingerprint,
        "tracking_uri": public_uri(plan.tracking_uri),
        "storage": plan.storage.root,
    }


def _params(plan: Plan) -> dict[str, object]:
    """What of a sweep never changes; the number of trials may grow and is a tag."""
    recipe: Recipe = plan.recipe
    return {
        "recipe": recipe.name,
        "seed": plan.seed,
        "epochs": recipe.base.epochs,
        "searched": ", ".join(recipe.space),
        **{f"space.{path}": dimension.words() for path, dimension in recipe.space.items()},
    }


def _tags(prepared: Prepared) -> dict[str, object]:
    plan, data = prepared.plan, prepared.data
    tags: dict[str, object] = {
        "sweep.trials": plan.recipe.budget.trials,
        "sweep.placement": plan.placement.words(),
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
