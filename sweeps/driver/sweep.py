"""Running a prepared sweep, new or resumed: ledger, trials, results, report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from filelock import FileLock, Timeout
from rich.console import Console

from sweeps.driver.driver_log import driver_log
from sweeps.driver.estimate_outcome import EstimateOutcome, estimate_outcome
from sweeps.driver.growth import missing_records, tag_of
from sweeps.driver.live_view import LiveView
from sweeps.driver.plan import SweepPlan
from sweeps.driver.prepare import PreparedSweep
from sweeps.driver.provenance import manifest_of, parameters, tags_of
from sweeps.driver.resume import refuse_other_data
from sweeps.driver.warm_starting import NOTHING, WarmStart
from sweeps.execution.ray_session import ray_up
from sweeps.execution.trial import TrialContext
from sweeps.execution.tune_run import private_folder, run_trials
from sweeps.search.controller import SweepController
from sweeps.state.ledger import DRIVER_LOCK, FILE, Event, Ledger, now_s
from sweeps.state.manifest import SweepManifest, read_manifest
from sweeps.state.progress import SweepProgress
from sweeps.state.stop_reason import StopReason
from sweeps.state.storage import is_full_disk
from sweeps.text import count, script
from sweeps.tracking.descriptions import sweep_note
from sweeps.tracking.publisher import Publisher
from sweeps.tracking.store import open_store
from sweeps.tracking.tracker import Tracker
from unetexp.errors import UnetexpError, UserError
from unetexp.system.stop_signals import hold, release
from unetexp.tracking.uri import tracking_option

_LAST_POINTS_S = 600.0  # how long the end of a sweep waits for a slow tracking store
_INTERRUPT_S = 5.0  # with Ray's shutdown, below the 10 s that batch systems and containers allow
REPORT = "report.html"


class Sweep:
    """A sweep with its folder, its run and its ledger, ready to run."""

    def __init__(
        self,
        prepared: PreparedSweep,
        tracker: Tracker,
        lock: FileLock,
        warm: WarmStart = NOTHING,
        manifest: SweepManifest | None = None,
    ) -> None:
        """Use `start` or `resume` instead; `warm` is what it takes over from other sweeps.

        `manifest` is that of a resumed sweep, whose space may have grown.
        """
        self.plan, self.data, self.tracker, self._lock = (
            prepared.plan,
            prepared.data,
            tracker,
            lock,
        )
        plan = self.plan
        self.ledger = Ledger(plan.control / FILE)
        for event, fields in warm.events:  # before the controller, which replays the ledger
            self.ledger.append(event, **fields)
        for growth in missing_records(manifest, self.ledger.events) if manifest else ():
            self.ledger.append("grown", **growth)
        self.controller = SweepController(
            plan.recipe, plan.seed, self.ledger, at_once=plan.placement.max_concurrent
        )
        self.report: Path | None = None  # once it is written
        self.complete = False  # whether a resume would have nothing to do
        self.interrupted = False  # by a signal
        self._closed = False
        self.estimate_outcome: EstimateOutcome | None = None  # once the sweep is at its end

    @classmethod
    def start(cls, prepared: PreparedSweep, warm: WarmStart = NOTHING) -> Sweep:
        """Create a new sweep's folder and run; UserError where a place cannot be written."""
        plan, data = prepared.plan, prepared.data
        tracker = Tracker(open_store(plan.tracking_uri))
        tracker.require_free(plan.name)
        if (plan.control / FILE).exists():
            raise UserError(
                f"{plan.control} holds the ledger of a sweep named {plan.name!r} already. Choose "
                "another --name or --storage."
            )
        plan.storage.require_writable()
        hold()  # `run` closes what is created from here on
        private_folder(plan.control)
        lock = _locked(plan)
        manifest_of(prepared).write(plan.control)
        tracker.start_sweep(
            plan.name,
            storage=plan.storage.root,
            tags={**tags_of(prepared), **warm.tags()},
            params=parameters(plan),
            artifacts={
                "recipe.yaml": yaml.safe_dump(plan.recipe.tree(), sort_keys=False),
                "data.json": json.dumps(data.summary(), indent=2),
                "splits.json": json.dumps(data.members(), indent=1),
            },
            note=sweep_note(plan.name, plan.recipe, data),
            dimensions=[path for path, some in plan.recipe.space.items() if not some.when],
            goals=plan.recipe.goals,
        )
        return cls(prepared, tracker, lock, warm)

    @classmethod
    def resume(cls, prepared: PreparedSweep, manifest: SweepManifest) -> Sweep:
        """Open an earlier sweep again; UserError if another driver runs it."""
        plan = prepared.plan
        lock = _locked(plan)
        refuse_other_data(manifest, prepared.data)
        plan.storage.require_writable()
        tracker = Tracker(open_store(plan.tracking_uri))
        hold()
        tracker.resume_sweep(
            plan.name,
            {"sweep.trials": plan.recipe.budget.trials, **tag_of(manifest)},
            sweep_note(plan.name, plan.recipe, prepared.data),
        )
        if plan.growth is not None:
            manifest.encoder_weights |= prepared.weights.weights
            manifest.added_space |= {p: some.tree() for p, some in prepared.weights.added.items()}
            number = len(manifest.growths)
            now = yaml.safe_dump(plan.recipe.tree(), sort_keys=False)
            earlier = {f"recipe-{number}.yaml": plan.growth.before, "recipe.yaml": now}
            tracker.log_sweep_artifacts(earlier)
        manifest.driver_starts.append(now_s())
        manifest.write(plan.control)
        return cls(prepared, tracker, lock, manifest=manifest)

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

    @property
    def progress(self) -> SweepProgress:
        """The progress, from the sweep's events."""
        return self.controller.progress

    def run(self, view: Callable[[Event], None]) -> StopReason:
        """Run all trials; returns why it ended: completed, converged, time_budget, interrupted
        or error.

        `view` is called with every event after `progress` was updated.
        """
        plan = self.plan
        say = _speaker(view)
        past = list(self.ledger.events)
        devices = plan.placement.gpus_per_trial or 1.0
        self.publisher = Publisher(self.tracker, plan.storage, plan.recipe, say, devices)
        self.controller.listeners += [self.publisher, view]
        placement = plan.placement
        context = TrialContext(
            plan.storage,
            self.data,
            placement.device,
            placement.threads,
            placement.loader_workers,
            placement.ranks,
            placement.rank_resources(),
            compute=plan.measured,
            gpu_share=placement.gpu_share,
            score=plan.recipe.goals.score,
            durable_epochs=self.controller.rungs.decisive_epochs,
            figures=plan.recipe.figures,
        )
        reason = StopReason.ERROR
        try:
            with _full_disk_explained(plan), driver_log(plan.control):
                release()
                if self.controller.trials:
                    self.publisher.catch_up(past)
                    self._report_resumed(say)
                address = plan.options.address
                with ray_up(placement, address, self.controller.say):
                    self._run_trials(context)
                reason = self._how_it_ended()
        except KeyboardInterrupt:
            reason, self.interrupted = StopReason.INTERRUPTED, True
        finally:
            with _full_disk_explained(plan):
                if not self._closed:
                    self._close(reason)
                self._write_results(reason, say)
            self._lock.release()
        return reason

    def _run_trials(self, context: TrialContext) -> None:
        """Run all trials; at a signal the ledger is closed before Ray, which takes seconds."""
        shared = self.plan.storage if self.plan.options.address else None
        try:
            run_trials(self.controller, context, self.plan.placement, shared=shared)
        except KeyboardInterrupt:
            self._close(StopReason.INTERRUPTED)
            raise

    def _how_it_ended(self) -> StopReason:
        if self.controller.halt_reason is not None:
            return StopReason.ERROR
        if self.controller.halted:
            return StopReason.TIME_BUDGET
        return StopReason.CONVERGED if self.controller.converged else StopReason.COMPLETED

    def _report_resumed(self, say: Callable[[str], None]) -> None:
        """Print the state of a resumed sweep: its trials, rungs and runs."""
        trials = self.controller.trials.values()
        finished = sum(trial.stop_reason is not None for trial in trials)
        say(f"resuming {self.plan.name}: {finished} of {len(trials)} trials are finished")
        for line in self.plan.growth.describe() if self.plan.growth else ():
            say(f"space: {line}")
        for trial in self.controller.to_continue:
            epoch = self.plan.storage.checkpoint_epoch(trial.id)
            how = f"resumes after epoch {epoch}" if epoch else "starts again"
            say(f"trial {trial.id} {how} ({count(trial.epoch, 'epoch')} in the ledger)")
        for line in self.controller.rungs.describe():
            say(line)
        closed = sum(
            why != StopReason.INTERRUPTED for why in self.tracker.settled_trials().values()
        )
        say(f"MLflow runs: {closed} closed, {len(trials) - closed} opened again")

    def _close(self, reason: StopReason) -> None:
        """Close the ledger, and the runs through the publisher."""
        hold()
        self._closed = True
        for trial in self.controller.running:
            self.controller.trial_ended(trial.id, StopReason.INTERRUPTED)
        kept = self.progress.kept(self.plan.recipe.budget.kept_models)
        best = [trial.id for trial in kept]
        self.publisher({"event": "best", "trials": best})
        self.publisher(self.ledger.append("closed", reason=reason))

    def _write_results(self, reason: StopReason, say: Callable[[str], None]) -> None:
        """Wait for the tracking store and write the report; a signal shortens the wait."""
        interrupted = reason.resumable
        try:
            release()
            arrived = self.publisher.close(_INTERRUPT_S if interrupted else _LAST_POINTS_S)
            if arrived and not interrupted:
                self._write_report(say)
                if not reason.failed:
                    self._compare_with_estimate()
                self.complete = True
        except KeyboardInterrupt:
            self.interrupted = True
            self.publisher.close(_INTERRUPT_S)

    def _write_report(self, say: Callable[[str], None]) -> None:
        """Write the report as a file and to the parent run; its failure is only a message."""
        try:
            from sweeps.report import write_report  # plotly takes a second to import

            path = write_report(self.tracker.store, self.plan.name, self.plan.control / REPORT)
            self.tracker.log_sweep_artifacts({REPORT: path})
            self.report = path
        except Exception as error:
            again = self.tracker.store.command("compare", self.plan.name, "--report")
            say(f"the report could not be written ({error}); try again: {again}")

    def _compare_with_estimate(self) -> None:
        """What the preflight said the sweep would take, beside what it took; tags of its run."""
        manifest = read_manifest(self.plan.control)
        self.estimate_outcome = estimate_outcome(manifest, self.ledger.events, now_s())
        if self.estimate_outcome is not None:
            self.tracker.tag_sweep(self.estimate_outcome.tags())


def _speaker(view: Callable[[Event], None]) -> Callable[[str], None]:
    return lambda text: view({"event": "said", "text": text})


def _locked(plan: SweepPlan) -> FileLock:
    """The sweep's lock, acquired; it is released when the driver dies."""
    lock = FileLock(plan.control / DRIVER_LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"sweep {plan.name!r} is being run by another process. Wait for it, or stop it."
        ) from None
    return lock


@contextmanager
def _full_disk_explained(plan: SweepPlan) -> Iterator[None]:
    """Turn a full disk into an UnetexpError with the command that resumes the sweep."""
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
    """The command that resumes a stopped sweep."""
    return script("run", "--resume", plan.name, *tracking_option(plan.options.tracking_uri))
