"""The sweep's events on their way to MLflow, behind the sweep's back.

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
from sweeps.state.progress import INTERRUPTED, SweepProgress
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
    """Feeds a tracker with the conductor's events, in a thread of its own."""

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
        self._complain = warn
        self._devices = devices_per_trial
        self._tally = SweepProgress(recipe.budget.trials, recipe.base.epochs, at_once=1)
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Take an event in; returns at once."""
        self._events.put(event)

    def catch_up(self, events: list[Event]) -> None:
        """Take in a past driver's events again, but for trials whose runs are closed as they ended.

        What of them is in the store already is not written twice.
        """
        settled = self._tracker.settled_trials()
        ends = [e for e in events if e["event"] == "end" and e["reason"] != INTERRUPTED]
        done = {e["trial"] for e in ends if settled.get(e["trial"]) == e["reason"]}
        for event in events:
            goes_on = event["event"] == "end" and event["reason"] == INTERRUPTED
            if event.get("trial") in done:
                self._tally.apply(event)
            elif "trial" in event and not goes_on:
                self(event)

    def close(self, patience_s: float) -> bool:
        """Wait until everything has arrived; False, said aloud, when `patience_s` ran out.

        Where a signal has ended it, it can be called again.
        """
        self._events.put(None)
        self._thread.join(patience_s)
        arrived = not self._thread.is_alive()
        if not arrived:
            self._complain(
                "the tracking store has not taken in everything; the rest is on disk, and "
                "--resume hands it in"
            )
        return arrived

    def _run(self) -> None:
        while (event := self._events.get()) is not None:
            self._deliver(event)

    def _deliver(self, event: Event) -> None:
        self._tally.apply(event)
        attempt = 0
        while True:
            try:
                self._write(event)
                if attempt:
                    self._complain("the tracking store answers again")
                return
            except Exception:
                if attempt == 0:
                    last = traceback.format_exc().strip().splitlines()[-1]
                    reason = without_secrets(last, self._tracker.store.uri)
                    self._complain(
                        f"the tracking store does not take an event, trying on: {reason}"
                    )
                self._closing.wait(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
                attempt += 1

    def _write(self, event: Event) -> None:
        match event["event"]:
            case "trial":
                params = flatten(self._recipe.config(event["values"]).tree())
                note = trial_note(event["trial"], event["values"])
                self._tracker.start_trial(
                    event["trial"], f"{self._recipe.name}-{event['trial']}", params, note
                )
            case "epoch":
                metrics = {n: v for n, v in event["metrics"].items() if n != "epoch"}
                self._tracker.log_epoch(event["trial"], event["epoch"], metrics, event["at"])
            case "end":
                goes_on = event["reason"] == INTERRUPTED
                self._log_results(event["trial"], series=not goes_on)
                cost = self._tally.by_id[event["trial"]].wall_s() * self._devices
                self._tracker.log_cost(event["trial"], cost, event["at"])
                self._tracker.end_trial(event["trial"], event["reason"], event["error"] or None)
                if not goes_on:  # one that goes on needs its checkpoints
                    self._storage.forget_resume_state(event["trial"])
            case "closed":
                self._tracker.end_sweep(
                    event["reason"], sweep_outcome(event["reason"], self._tally)
                )
            case "best":
                for trial in event["trials"]:
                    self._tracker.log_checkpoint(trial, self._storage.local_copy(trial) / BEST)

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
