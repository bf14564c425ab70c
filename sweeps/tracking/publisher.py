"""The sweep's events on their way to MLflow, in the background.

A thread of the driver takes the events in order, so trials never wait for the tracking store. A
store that does not answer is tried again until it does; nothing is dropped or written twice,
because the tracker writes an epoch once.
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
from sweeps.state.progress import SweepProgress
from sweeps.state.stop_reason import StopReason
from sweeps.state.storage import Storage
from sweeps.tracking.descriptions import sweep_outcome, trial_note
from sweeps.tracking.mlflow_ui import BEST_OVERLAY, BEST_STEP, OVERLAY_SERIES
from sweeps.tracking.tracker import Tracker
from unetexp.component import flatten
from unetexp.tracking.server import without_secrets
from unetexp.training.experiment import BEST, OVERLAY, best_figures, has_model, overlays
from unetexp.training.pictures import draw_confusion

_RETRY_S = (1.0, 2.0, 5.0, 10.0, 30.0)
KEPT_CHECKPOINTS = 3


class Publisher:
    """Feeds a tracker with the controller's events, in a thread of its own."""

    def __init__(
        self,
        tracker: Tracker,
        storage: Storage,
        recipe: Recipe,
        warn: Callable[[str], None],
        devices_per_trial: float = 1.0,
    ) -> None:
        """`devices_per_trial` are its GPUs, which may be a part of one; 1 on the CPU."""
        self._tracker, self._storage, self._recipe = tracker, storage, recipe
        self._warn = warn
        self._devices = devices_per_trial
        # Lags behind the controller's: a run is written as things stood at its event.
        self._progress = SweepProgress(recipe.budget.trials, recipe.base.epochs, at_once=1)
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Take an event in; returns at once."""
        self._events.put(event)

    def catch_up(self, events: list[Event]) -> None:
        """Publish a past driver's events, but of trials whose runs are closed as they ended.

        What is in the store already is not written twice.
        """
        settled = self._tracker.settled_trials()
        ends = [e for e in events if e["event"] == "end" and not _resumable(e)]
        done = {e["trial"] for e in ends if settled.get(e["trial"]) == e["reason"]}
        for event in events:
            interrupted = event["event"] == "end" and _resumable(event)
            if event.get("trial") in done:
                self._progress.apply(event)
            elif "trial" in event and not interrupted:
                self(event)

    def close(self, patience_s: float) -> bool:
        """Wait until everything has arrived; False, with a message, when `patience_s` ran out.

        Where a signal has ended it, it can be called again.
        """
        self._events.put(None)
        self._thread.join(patience_s)
        arrived = not self._thread.is_alive()
        if not arrived:
            self._warn(
                "the tracking store has not received everything; the rest is on disk, and "
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
                    self._warn("the tracking store answers again")
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
            case "best":
                for trial in event["trials"]:
                    self._log_checkpoint(trial)

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
        self._log_results(trial.id, series=not reason.resumable)
        self._tracker.log_cost(trial.id, trial.wall_s() * self._devices, event["at"])
        self._tracker.end_trial(trial.id, reason, event["error"] or None)
        if not reason.resumable:  # one that is resumed needs its checkpoints
            self._storage.forget_resume_state(trial.id)

    def _log_checkpoint(self, trial: str) -> None:
        folder = self._storage.local_copy(trial)
        if has_model(folder):
            self._tracker.log_checkpoint(trial, folder / BEST)
        else:
            self._warn(f"trial {trial}: no weights in {folder}, so MLflow gets none of them")

    def _log_results(self, trial: str, series: bool) -> None:
        """Config, pictures, confusion matrix and per-class table of the trial's best epoch.

        Pictures in a `series` cannot be taken back, so they are for a trial that is over.
        """
        folder = self._storage.local_copy(trial)
        if not has_model(folder):
            return
        figures = best_figures(folder)
        self._tracker.log_machine(trial, figures.get("machine", {}))
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
            draw_confusion(place / "confusion_matrix.png", figures["confusion"], figures["classes"])
            per_class(figures).to_csv(place / "per_class.csv", index=False)
            self._tracker.log_artifacts(trial, place)


def _resumable(end: Event) -> bool:
    return StopReason(end["reason"]).resumable


def per_class(figures: dict[str, Any]) -> pd.DataFrame:
    """A row a class: IoU, Dice, and pixels that are it, that were taken for it."""
    confusion = pd.DataFrame(figures["confusion"])
    metrics = figures["metrics"]
    return pd.DataFrame(
        {
            "class": figures["classes"],
            "iou": [metrics[f"val/iou/{name}"] for name in figures["classes"]],
            "dice": [metrics[f"val/dice/{name}"] for name in figures["classes"]],
            "true_pixels": confusion.sum(axis=1),
            "predicted_pixels": confusion.sum(axis=0),
        }
    )
