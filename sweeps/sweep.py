"""A sweep from its plan to its last line: data, weights, records, trials, results."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from sweeps.cluster import joined
from sweeps.conductor import Conductor
from sweeps.hardware import hardware_summary
from sweeps.ledger import FILE, Event, Ledger
from sweeps.notes import sweep_note
from sweeps.places import require_places
from sweeps.plan import DEFAULT_RECIPE, Plan
from sweeps.publishing import KEPT_CHECKPOINTS, Publisher
from sweeps.recipe import Recipe, available_recipes
from sweeps.record import Record
from sweeps.resume import find_control, refuse_other_data
from sweeps.runner import private_folder, ray_up, run_trials
from sweeps.storage import is_full_disk
from sweeps.store import PROJECT_ROOT, open_store
from sweeps.tally import Tally
from sweeps.tracking import Tracker
from sweeps.trial import TrialPlan
from sweeps.warm_start import known_trials
from unetexp.data import Dataset, open_dataset
from unetexp.errors import UnetexpError, UserError
from unetexp.server import public_uri
from unetexp.weights import resolve_weights

_PACKAGES = ("torch", "torchvision", "ray", "optuna", "mlflow", "pandas")
_LAST_POINTS_S = 600.0  # how long the end of a sweep waits for a slow tracking store
_INTERRUPT_S = 8.0
_LOCK = "driver.lock"
REPORT = "report.html"


@dataclass(frozen=True)
class Prepared:
    """A planned sweep with its data at hand and its weights settled."""

    plan: Plan
    recipe_asked: Recipe  # before its weights were settled
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
    if plan.options.address is not None:
        with joined(plan.options.address):
            require_places(plan.storage, data, base)
    return Prepared(replace(plan, recipe=recipe), plan.recipe, data, tuple(notices))


class Sweep:
    """A sweep with its folder, its run and its ledger, ready to run."""

    def __init__(self, prepared: Prepared, tracker: Tracker, lock: FileLock) -> None:
        """`start` and `resume` make one."""
        self.plan, self.data, self.tracker, self._lock = (
            prepared.plan,
            prepared.data,
            tracker,
            lock,
        )
        recipe = self.plan.recipe
        self.ledger = Ledger(self.plan.control / FILE)
        self.tally = Tally(
            recipe.budget.trials, recipe.base.epochs, self.plan.placement.max_concurrent
        )
        for event in self.ledger.events:
            self.tally.take_in(event)
        for trial in self.tally.running:
            trial.leave_worker()
        self.report: Path | None = None  # once it is written

    @classmethod
    def start(cls, prepared: Prepared) -> Sweep:
        """Make a new sweep's folder and run; UserError where a place cannot be written."""
        plan, data = prepared.plan, prepared.data
        tracker = Tracker(open_store(plan.tracking_uri))
        tracker.require_free(plan.name)
        if (plan.control / FILE).exists():
            raise UserError(
                f"{plan.control} holds the record of a sweep named {plan.name!r} already. Choose "
                "another --name or --storage."
            )
        plan.storage.require_writable()
        private_folder(plan.control)
        lock = _locked(plan)
        _record(prepared).write(plan.control)
        tracker.start_sweep(
            plan.name,
            storage=plan.storage.root,
            tags=_tags(prepared),
            params=_params(plan),
            artifacts={
                "recipe.yaml": yaml.safe_dump(plan.recipe.tree(), sort_keys=False),
                "data.json": json.dumps(data.summary(), indent=2),
            },
            note=sweep_note(plan.name, plan.recipe, data),
            dimensions=[path for path, some in plan.recipe.space.items() if not some.when],
        )
        sweep = cls(prepared, tracker, lock)
        if plan.options.warm_start is not None:
            other = find_control(plan.options.warm_start, plan.options)
            for known in known_trials(plan.recipe, Ledger(other / FILE, write=False)):
                sweep.ledger.append("known", **known)
        return sweep

    @classmethod
    def resume(cls, prepared: Prepared, record: Record) -> Sweep:
        """Open an earlier sweep again; UserError if another driver is at it."""
        plan = prepared.plan
        lock = _locked(plan)
        refuse_other_data(record, prepared.data)
        plan.storage.require_writable()
        tracker = Tracker(open_store(plan.tracking_uri))
        tracker.resume_sweep(
            plan.name,
            {"sweep.trials": plan.recipe.budget.trials},
            sweep_note(plan.name, plan.recipe, prepared.data),
        )
        record.write(plan.control)
        return cls(prepared, tracker, lock)

    def run(self, view: Callable[[Event], None]) -> str:
        """Run all trials; returns how it ended: completed, time_budget, interrupted or error.

        `view` is called with every event and keeps `tally` up to date.
        """
        plan = self.plan
        say = _speaker(view)
        past = list(self.ledger.events)
        devices = plan.placement.gpus_per_trial or 1.0
        self.publisher = Publisher(self.tracker, plan.storage, plan.recipe, say, devices)
        self.conductor = Conductor(plan.recipe, plan.seed, self.ledger, [self.publisher, view])
        placement = plan.placement
        trial_plan = TrialPlan(
            plan.storage,
            self.data,
            placement.device,
            placement.threads,
            placement.loader_workers,
            placement.ranks,
            placement.rank_resources(),
        )
        reason = "error"
        try:
            with _full_disk_explained(plan):
                if self.conductor.trials:
                    self.publisher.catch_up(past)
                    self._say_what_was_found(say)
                address = plan.options.address
                with ray_up(placement, address, self.conductor.say):
                    shared = plan.storage if address else None
                    run_trials(self.conductor, trial_plan, placement, shared=shared)
                reason = self._how_it_ended()
        except KeyboardInterrupt:
            reason = "interrupted"
        finally:
            with _full_disk_explained(plan):
                arrived = self._close(reason)
                if arrived and reason != "interrupted":
                    self._write_report(say)
            self._lock.release()
        return reason

    def _how_it_ended(self) -> str:
        if self.conductor.halt_reason is not None:
            return "error"
        return "time_budget" if self.conductor.halted else "completed"

    def _say_what_was_found(self, say: Callable[[str], None]) -> None:
        """The check of a resumed sweep: its trials, rungs and runs."""
        trials = self.conductor.trials.values()
        finished = sum(trial.stop_reason is not None for trial in trials)
        say(f"resuming {self.plan.name}: {finished} of {len(trials)} trials are finished")
        for trial in self.conductor.to_continue:
            epoch = self.plan.storage.checkpoint_epoch(trial.id)
            how = f"goes on after epoch {epoch}" if epoch else "starts again"
            say(f"trial {trial.id} {how} ({trial.epoch} epochs are on record)")
        for line in self.conductor.rungs.words():
            say(line)
        closed = len(self.tracker.settled_trials())
        say(f"{closed} MLflow runs are closed, {len(trials) - closed} are opened again")

    def _close(self, reason: str) -> bool:
        """End the record and the runs; False if not everything reached the tracking store."""
        for trial in self.conductor.running:
            self.conductor.trial_ended(trial.id, "interrupted")
        best = [trial.id for trial in self.tally.ranking[:KEPT_CHECKPOINTS]]
        self.publisher({"event": "best", "trials": best})
        self.publisher(self.ledger.append("closed", reason=reason))
        return self.publisher.close(_INTERRUPT_S if reason == "interrupted" else _LAST_POINTS_S)

    def _write_report(self, say: Callable[[str], None]) -> None:
        """The report as a file and in the parent run; a sweep does not fail for its picture."""
        try:
            from sweeps.report import write_report  # plotly takes a second to import

            path = write_report(self.tracker.store, self.plan.name, self.plan.control / REPORT)
            self.tracker.log_sweep_artifacts({REPORT: path})
            self.report = path
        except Exception as error:
            again = f"python sweeps/compare.py {self.plan.name} --report"
            say(f"the report could not be made ({error}); try again: {again}")


def _speaker(view: Callable[[Event], None]) -> Callable[[str], None]:
    return lambda text: view({"event": "said", "text": text})


def _locked(plan: Plan) -> FileLock:
    """The sweep's lock, taken; a driver that dies lets go of it."""
    lock = FileLock(plan.control / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"sweep {plan.name!r} is being run by another process. Wait for it, or stop it."
        ) from None
    return lock


@contextmanager
def _full_disk_explained(plan: Plan) -> Iterator[None]:
    """The driver cannot go on without its record; a later resume can."""
    try:
        yield
    except Exception as error:
        if not is_full_disk(error):
            raise
        raise UnetexpError(
            f"the disk of {plan.control} or of the tracking store is full. Free space, then: "
            f"{resume_command(plan)}"
        ) from None


def resume_command(plan: Plan) -> str:
    """What brings a stopped sweep back."""
    uri = plan.options.tracking_uri
    extra = f" --tracking-uri {public_uri(uri)}" if uri else ""
    return f"python sweeps/run.py --resume {plan.name}{extra}"


def _record(prepared: Prepared) -> Record:
    plan, options = prepared.plan, prepared.plan.options
    recipe = options.recipe or DEFAULT_RECIPE
    shipped = recipe in available_recipes()
    return Record(
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
    )


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
