"""A prepared sweep, new or resumed, to its last line: records, trials, results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from filelock import FileLock, Timeout
from rich.console import Console

from sweeps.driver.forecast import ForecastOutcome, forecast_outcome
from sweeps.driver.live_view import LiveView
from sweeps.driver.plan import SweepPlan
from sweeps.driver.prepare import PreparedSweep
from sweeps.driver.provenance import manifest_of, parameters, tags_of
from sweeps.driver.resume import find_control, refuse_other_data
from sweeps.execution.trial import TrialContext
from sweeps.execution.tune_run import private_folder, ray_up, run_trials
from sweeps.search.controller import SweepController
from sweeps.search.warm_start import known_trials
from sweeps.state.ledger import FILE, Event, Ledger, now_s
from sweeps.state.manifest import SweepManifest, read_manifest
from sweeps.state.progress import INTERRUPTED, SweepProgress
from sweeps.state.storage import is_full_disk
from sweeps.text import count, program
from sweeps.tracking.descriptions import sweep_note
from sweeps.tracking.publisher import KEPT_CHECKPOINTS, Publisher
from sweeps.tracking.store import open_store
from sweeps.tracking.tracker import Tracker
from unetexp.errors import UnetexpError, UserError
from unetexp.tracking.server import public_uri

_LAST_POINTS_S = 600.0  # how long the end of a sweep waits for a slow tracking store
_INTERRUPT_S = 8.0
_LOCK = "driver.lock"
REPORT = "report.html"


class Sweep:
    """A sweep with its folder, its run and its ledger, ready to run."""

    def __init__(self, prepared: PreparedSweep, tracker: Tracker, lock: FileLock) -> None:
        """`start` and `resume` make one."""
        self.plan, self.data, self.tracker, self._lock = (
            prepared.plan,
            prepared.data,
            tracker,
            lock,
        )
        recipe = self.plan.recipe
        self.ledger = Ledger(self.plan.control / FILE)
        self.progress = SweepProgress(
            recipe.budget.trials, recipe.base.epochs, self.plan.placement.max_concurrent
        )
        for event in self.ledger.events:
            self.progress.apply(event)
        for trial in self.progress.running:
            trial.leave_worker()
        self.report: Path | None = None  # once it is written
        self.forecast: ForecastOutcome | None = None  # once the sweep is at its end

    @classmethod
    def start(cls, prepared: PreparedSweep) -> Sweep:
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
        manifest_of(prepared).write(plan.control)
        tracker.start_sweep(
            plan.name,
            storage=plan.storage.root,
            tags=tags_of(prepared),
            params=parameters(plan),
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
    def resume(cls, prepared: PreparedSweep, manifest: SweepManifest) -> Sweep:
        """Open an earlier sweep again; UserError if another driver is at it."""
        plan = prepared.plan
        lock = _locked(plan)
        refuse_other_data(manifest, prepared.data)
        plan.storage.require_writable()
        tracker = Tracker(open_store(plan.tracking_uri))
        tracker.resume_sweep(
            plan.name,
            {"sweep.trials": plan.recipe.budget.trials},
            sweep_note(plan.name, plan.recipe, prepared.data),
        )
        manifest.driver_starts.append(now_s())
        manifest.write(plan.control)
        return cls(prepared, tracker, lock)

    def view(self, console: Console | None = None) -> LiveView:
        """What the terminal shows while it runs."""
        placement = self.plan.placement
        return LiveView(
            self.plan.name,
            self.progress,
            device="GPU" if placement.gpus else "CPU",
            devices_per_trial=placement.gpus_per_trial or placement.cpus_per_trial,
            trials_url=self.tracker.trials_url(),
            simulated=placement.simulated,
            console=console,
        )

    def run(self, view: Callable[[Event], None]) -> str:
        """Run all trials; returns how it ended: completed, time_budget, interrupted or error.

        `view` is called with every event and keeps `tally` up to date.
        """
        plan = self.plan
        say = _speaker(view)
        past = list(self.ledger.events)
        devices = plan.placement.gpus_per_trial or 1.0
        self.publisher = Publisher(self.tracker, plan.storage, plan.recipe, say, devices)
        self.controller = SweepController(
            plan.recipe, plan.seed, self.ledger, [self.publisher, view]
        )
        placement = plan.placement
        context = TrialContext(
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
                if self.controller.trials:
                    self.publisher.catch_up(past)
                    self._say_what_was_found(say)
                address = plan.options.address
                with ray_up(placement, address, self.controller.say):
                    shared = plan.storage if address else None
                    run_trials(self.controller, context, placement, shared=shared)
                reason = self._how_it_ended()
        except KeyboardInterrupt:
            reason = "interrupted"
        finally:
            with _full_disk_explained(plan):
                arrived = self._close(reason)
                if arrived and reason != "interrupted":
                    self._write_report(say)
                if arrived and reason in ("completed", "time_budget"):
                    self._hold_against_estimate()
            self._lock.release()
        return reason

    def _how_it_ended(self) -> str:
        if self.controller.halt_reason is not None:
            return "error"
        return "time_budget" if self.controller.halted else "completed"

    def _say_what_was_found(self, say: Callable[[str], None]) -> None:
        """The check of a resumed sweep: its trials, rungs and runs."""
        trials = self.controller.trials.values()
        finished = sum(trial.stop_reason is not None for trial in trials)
        say(f"resuming {self.plan.name}: {finished} of {len(trials)} trials are finished")
        for trial in self.controller.to_continue:
            epoch = self.plan.storage.checkpoint_epoch(trial.id)
            how = f"goes on after epoch {epoch}" if epoch else "starts again"
            say(f"trial {trial.id} {how} ({count(trial.epoch, 'epoch')} on record)")
        for line in self.controller.rungs.describe():
            say(line)
        closed = sum(why != INTERRUPTED for why in self.tracker.settled_trials().values())
        say(f"MLflow runs: {closed} closed, {len(trials) - closed} opened again")

    def _close(self, reason: str) -> bool:
        """End the record and the runs; False if not everything reached the tracking store."""
        for trial in self.controller.running:
            self.controller.trial_ended(trial.id, "interrupted")
        best = [trial.id for trial in self.progress.ranking[:KEPT_CHECKPOINTS]]
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
            again = f"{program('python')} sweeps/compare.py {self.plan.name} --report"
            say(f"the report could not be made ({error}); try again: {again}")

    def _hold_against_estimate(self) -> None:
        """What the preflight said the sweep would take, beside what it took; tags of its run."""
        manifest = read_manifest(self.plan.control)
        self.forecast = forecast_outcome(manifest, self.ledger.events, now_s())
        if self.forecast is not None:
            self.tracker.tag_sweep(self.forecast.tags())


def _speaker(view: Callable[[Event], None]) -> Callable[[str], None]:
    return lambda text: view({"event": "said", "text": text})


def _locked(plan: SweepPlan) -> FileLock:
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
def _full_disk_explained(plan: SweepPlan) -> Iterator[None]:
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


def resume_command(plan: SweepPlan) -> str:
    """What brings a stopped sweep back."""
    uri = plan.options.tracking_uri
    extra = f" --tracking-uri {public_uri(uri)}" if uri else ""
    return f"{program('python')} sweeps/run.py --resume {plan.name}{extra}"
