"""Publishes the sweep's events to MLflow, in the background.

A thread of the driver handles the events in order, so trials never wait for the tracking store. A
failed write is retried until it succeeds. Nothing is dropped or written twice, because the tracker
writes an epoch once.
"""

from __future__ import annotations

import queue
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from sweeps.config.recipe import Recipe
from sweeps.state.ledger import Event
from sweeps.state.progress import SweepProgress, why_converged
from sweeps.state.stop_reason import StopReason
from sweeps.state.storage import Storage
from sweeps.tracking.descriptions import sweep_outcome, trial_note
from sweeps.tracking.mlflow_ui import BEST_OVERLAY, BEST_STEP, OVERLAY_SERIES
from sweeps.tracking.tracker import Tracker
from unetexp.component import flatten
from unetexp.inference.validation_figures import FIGURES, read_figures, tracked
from unetexp.models.saved_model import WEIGHTS
from unetexp.tracking.server import without_secrets
from unetexp.training.experiment import BEST, OVERLAY, best_figures, has_model, overlays
from unetexp.training.pictures import draw_confusion

CONVERGED = "sweep.converged"  # tag of a sweep that ended before all its trials: why
_RETRY_S = (1.0, 2.0, 5.0, 10.0, 30.0)


class Publisher:
    """Passes the controller's events to a tracker, in its own thread."""

    def __init__(
        self,
        tracker: Tracker,
        storage: Storage,
        recipe: Recipe,
        warn: Callable[[str], None],
        devices_per_trial: float = 1.0,
    ) -> None:
        """`devices_per_trial`: GPUs per trial, possibly a fraction of one; 1 on the CPU."""
        self._tracker, self._storage, self._recipe = tracker, storage, recipe
        self._warn = warn
        self._devices = devices_per_trial
        # Lags behind the controller's: a run is written with the progress at its event.
        self._progress = SweepProgress(
            recipe.budget.trials, recipe.base.epochs, at_once=1, goals=recipe.goals
        )
        self._pruned: set[str] = set()  # by this driver
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Queue an event; returns at once."""
        self._events.put(event)

    def catch_up(self, events: list[Event]) -> None:
        """Publish an earlier driver's events, except of trials whose runs are already closed.

        Nothing that is in the store already is written twice.
        """
        settled = self._tracker.settled_trials()
        ends = [e for e in events if e["event"] == "end" and not _resumable(e)]
        done = {e["trial"] for e in ends if settled.get(e["trial"]) == e["reason"]}
        for event in events:
            interrupted = event["event"] == "end" and _resumable(event)
            if event.get("trial") in done:
                self._progress.apply(event)
            elif event["event"] == "converged" or ("trial" in event and not interrupted):
                self(event)

    def close(self, patience_s: float) -> bool:
        """Wait until everything is written; False, with a message, after `patience_s` seconds.

        It can be called again after a signal has interrupted it.
        """
        self._events.put(None)
        self._thread.join(patience_s)
        arrived = not self._thread.is_alive()
        if not arrived:
            self._warn(
                "the tracking store has not received everything; the rest is in the ledger, and "
                "--resume writes it"
            )
        return arrived

    def _run(self) -> None:
        while (event := self._events.get()) is not None:
            self._deliver(event)

    def _deliver(self, event: Event) -> None:
        self._progress.apply(event)
        attempt = 0
        while True:
            try:
                self._write(event)
                if attempt:
                    self._warn("the tracking store: writes succeed again")
                return
            except Exception:
                if attempt == 0:
                    last = traceback.format_exc().strip().splitlines()[-1]
                    reason = without_secrets(last, self._tracker.store.uri)
                    self._warn(f"the tracking store: write failed, retrying: {reason}")
                self._closing.wait(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
                attempt += 1

    def _write(self, event: Event) -> None:
        match event["event"]:
            case "trial":
                self._start_trial(event)
            case "epoch":
                self._log_epoch(event)
            case "end":
                self._end_trial(event)
            case "gpu_set_aside":
                self._tracker.tag_gpu_set_aside(event["gpu"])
            case "closed":
                reason = StopReason(event["reason"])
                self._tracker.end_sweep(reason, sweep_outcome(reason, self._progress))
            case "converged":
                self._tracker.tag_sweep({CONVERGED: why_converged(event)})
            case "best":
                self._keep_checkpoints(event["trials"])

    def _start_trial(self, event: Event) -> None:
        trial, values = event["trial"], event["values"]
        # Ledgers of earlier versions hold the searched values only.
        params = event.get("params") or flatten(self._recipe.config(values).tree())
        name = f"{self._recipe.name}-{trial}"
        self._tracker.start_trial(trial, name, params, trial_note(trial, values))

    def _log_epoch(self, event: Event) -> None:
        metrics = {n: v for n, v in event["metrics"].items() if n != "epoch"}
        self._tracker.log_epoch(event["trial"], event["epoch"], metrics, event["at"])

    def _end_trial(self, event: Event) -> None:
        trial, reason = self._progress.by_id[event["trial"]], StopReason(event["reason"])
        folder = self._storage.local_copy(trial.id)
        self._log_results(trial.id, folder, series=not reason.resumable)
        self._log_figures(trial.id, folder, event["at"])
        self._tracker.log_cost(trial.id, trial.wall_s() * self._devices, event["at"])
        self._tracker.end_trial(trial.id, reason, event["error"] or None)
        if not reason.resumable:  # one that is resumed needs its checkpoints
            self._storage.forget_resume_state(trial.id)
            self._prune_models()

    def _log_figures(self, trial: str, folder: Path, at_s: float) -> None:
        """Write the figures of a trial that has some: as metrics, and as a file with intervals."""
        figures = read_figures(folder)
        if figures is None:
            return
        self._tracker.log_figures(trial, tracked(figures), figures["epoch"], at_s)
        self._tracker.log_artifacts(trial, folder / BEST / FIGURES)

    def _prune_models(self) -> None:
        """Remove the weights of the trials that ended and are not among the best of those.

        Those of the Pareto front of several objectives stay.
        """
        front = {trial.id for trial in self._progress.front}
        for trial in self._progress.ended_ranking[self._recipe.budget.kept_models :]:
            if trial.id not in self._pruned | front:
                self._storage.remove_file(trial.id, f"{BEST}/{WEIGHTS}")
                self._pruned.add(trial.id)

    def _keep_checkpoints(self, best: list[str]) -> None:
        """Write the weights of the trials `best` to MLflow; those of others are removed there."""
        for trial in best:
            self._log_checkpoint(trial)
        try:
            self._tracker.remove_checkpoints(kept=best)
        except Exception as error:  # they are in nobody's way, and some stores remove nothing
            self._warn(f"weights of earlier best trials stay in MLflow: {error}")
        self._prune_models()  # also those of trials that ended under an earlier driver

    def _log_checkpoint(self, trial: str) -> None:
        folder = self._storage.local_copy(trial)
        if (folder / BEST / WEIGHTS).is_file():
            self._tracker.log_checkpoint(trial, folder / BEST)
            self._warn_of_older_weights(trial, folder)
        elif not has_model(folder):
            self._warn(f"trial {trial}: no weights in {folder}, so none were written to MLflow")
        else:
            again = self._tracker.store.reproduce_command(self._tracker.run_id(trial))
            self._warn(
                f"trial {trial}: its weights were removed before budget.keep_models was raised; "
                f"{again} trains it again"
            )

    def _warn_of_older_weights(self, trial: str, folder: Path) -> None:
        written, best = best_figures(folder)["epoch"], self._progress.by_id[trial].best_epoch
        if written < best:
            self._warn(
                f"trial {trial} was stopped while the weights of epoch {best} were being written; "
                f"those in MLflow are of epoch {written}, until the trial is resumed"
            )

    def _log_results(self, trial: str, folder: Path, series: bool) -> None:
        """Write config, images, confusion matrix and per-class table of the trial's best epoch.

        An image in a `series` cannot be removed, so it is only written for a trial that is over.
        """
        if not has_model(folder):
            return
        best = best_figures(folder)
        self._tracker.log_machine(trial, best.get("machine", {}))
        self._tracker.log_initial_weights(trial, best.get("initial_weights", {}))
        self._tracker.log_settings(trial, best.get("settings", {}))
        picture = folder / BEST / OVERLAY
        if series:
            for epoch, overlay in overlays(folder).items():
                self._tracker.log_image(trial, overlay, OVERLAY_SERIES, epoch)
            self._tracker.log_image(trial, picture, BEST_OVERLAY, BEST_STEP)
        with tempfile.TemporaryDirectory() as scratch:
            place = Path(scratch)
            (place / "config.yaml").write_bytes((folder / "config.yaml").read_bytes())
            for image in (folder / BEST).glob("*.png"):
                (place / image.name).write_bytes(image.read_bytes())
            draw_confusion(place / "confusion_matrix.png", best["confusion"], best["classes"])
            per_class(best).to_csv(place / "per_class.csv", index=False)
            self._tracker.log_artifacts(trial, place)


def _resumable(end: Event) -> bool:
    return StopReason(end["reason"]).resumable


def per_class(best: dict[str, Any]) -> pd.DataFrame:
    """One row per class: IoU, Dice, pixels of the class, pixels predicted as it."""
    confusion = pd.DataFrame(best["confusion"])
    metrics = best["metrics"]
    return pd.DataFrame(
        {
            "class": best["classes"],
            "iou": [metrics[f"val/iou/{name}"] for name in best["classes"]],
            "dice": [metrics[f"val/dice/{name}"] for name in best["classes"]],
            "true_pixels": confusion.sum(axis=1),
            "predicted_pixels": confusion.sum(axis=0),
        }
    )
