"""The tracker: writes a sweep and its trials to MLflow.

A sweep is a parent run, a trial a child run; steps are finished epochs, from 1. All calls go
through `MlflowClient` with explicit run ids, so nothing depends on a current run or folder. A
call that failed may be repeated: runs, points and images are not written twice.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.config.checks import check_name
from sweeps.config.goals import USUAL, Goals, goals_of
from sweeps.config.metric_names import BEST_EPOCH, COST
from sweeps.state.progress import TrialProgress
from sweeps.state.stop_reason import StopReason
from sweeps.text import paragraphs
from sweeps.tracking.descriptions import trial_outcome
from sweeps.tracking.mlflow_ui import DIMENSIONS, save_view, trials_url
from sweeps.tracking.own_files import PROJECT
from sweeps.tracking.run_writer import RunWriter, TrialRun, now_ms
from sweeps.tracking.store import PRIMARY_METRIC, PROJECT_ROOT, TrackingStore, open_store
from unetexp.errors import UserError
from unetexp.models.saved_model import CONFIG, WEIGHTS
from unetexp.tracking.locate import CHECKPOINT, SCORE_TAG
from unetexp.training.config import SCORE
from unetexp.training.experiment import MACHINE

if TYPE_CHECKING:
    from mlflow.entities import Run

SET_ASIDE_TAG = "sweep.gpus_set_aside"
SETTINGS = "settings."  # prefix of the tags about settings that were read back
WEIGHTS_FROM = "weights."  # prefix of the tags about the initial weights


class Tracker:
    """Writes one sweep into a tracking store."""

    def __init__(self, store: TrackingStore) -> None:
        self.store = store
        self._client = store.client
        self._name = ""
        self._note = ""
        self._sweep: RunWriter | None = None
        self._trials: dict[str, TrialRun] = {}
        self._may_have_run: set[str] = set()  # trials to look up in the store
        self._best = -math.inf
        self._goals = USUAL

    # The sweep

    def require_free(self, name: str) -> None:
        """Raise UserError unless `name` can be the name of a new sweep."""
        check_name(name)
        if self.store.sweep_runs(name):
            raise UserError(
                f"a sweep named {name!r} exists already. Choose another with --name, or remove "
                f"it: {self.store.command('run', '--delete', name)}"
            )

    def start_sweep(
        self,
        name: str,
        *,
        storage: str,
        tags: Mapping[str, object] | None = None,
        params: Mapping[str, object] | None = None,
        artifacts: Mapping[str, str | Path] | None = None,
        note: str = "",
        dimensions: Iterable[str] = DIMENSIONS,
        goals: Goals = USUAL,
    ) -> str:
        """Open the parent run and return its id; `artifacts` are texts or files by path.

        `dimensions` are the parameters that the UI shows beside the metrics of each trial, `goals`
        the sweep's objectives.
        Raises UserError if the name is taken, also by another driver at the same moment.
        """
        own = {
            "sweep.name": name,
            "sweep.storage": storage,
            PROJECT: str(PROJECT_ROOT),
            **goals.tag(),
            **_driver(),
        }
        with self.store.exclusive():
            self.require_free(name)
            run_id = self._create_run(name, note, {**(tags or {}), **own})
        first = min(self.store.sweep_runs(name), key=_age)
        if first.info.run_id != run_id:  # on a server, where no lock keeps drivers apart
            self._client.delete_run(run_id)
            self.require_free(name)
        self._name, self._note, self._goals = name, note, goals
        self._sweep = RunWriter(self._client, run_id)
        self._sweep.log_params(params or {})
        self.log_sweep_artifacts(artifacts or {})
        save_view(self.store, run_id, name, dimensions, goals)
        self._client.set_experiment_tag(self.store.experiment_id, PRIMARY_METRIC, goals.best)
        return run_id

    def resume_sweep(
        self, name: str, tags: Mapping[str, object] | None = None, note: str = ""
    ) -> str:
        """Open the parent run of an earlier sweep again and return its id.

        `tags` hold what may have changed, `note` is its original description (by default the
        current one). Raises UserError if there is no such sweep.
        """
        run = self.store.sweep_run(name)
        self._name, self._note = name, note or run.data.tags.get("mlflow.note.content", "")
        self._sweep = RunWriter(self._client, run.info.run_id)
        self._goals = goals_of(run.data.tags)
        self._best = run.data.metrics.get(self._goals.best, -math.inf)
        runs = self.store.trial_runs(run.info.run_id)
        self._may_have_run = {child.data.tags["tune.trial_id"] for child in runs}
        self._sweep.reopen()
        self._sweep.set_tags({**(tags or {}), **_driver()})
        return self._sweep.run_id

    def tag_sweep(self, tags: Mapping[str, object]) -> None:
        """Set tags of the parent run, which may be closed."""
        self._parent.set_tags(tags)

    def log_sweep_artifacts(self, artifacts: Mapping[str, str | Path]) -> None:
        """Add texts (str) or files (Path) to the parent run, by their artifact path."""
        for where, content in artifacts.items():
            self._parent.log_content(where, content)

    def tag_gpu_set_aside(self, gpu: str) -> None:
        """Add a GPU to the tag `sweep.gpus_set_aside`."""
        named = self._client.get_run(self._parent.run_id).data.tags.get(SET_ASIDE_TAG, "")
        gpus = [*filter(None, named.split(", ")), gpu]
        self._parent.set_tags({SET_ASIDE_TAG: ", ".join(dict.fromkeys(gpus))})

    def end_sweep(self, stop_reason: StopReason | str, note: str = "") -> None:
        """Close the parent run and, as interrupted, every trial that still runs.

        `note`, how it ended, is put first, because the UI shows only a few lines.
        """
        for trial_id, trial in list(self._trials.items()):
            if trial.running:
                self.end_trial(trial_id, StopReason.INTERRUPTED)
        self._parent.close(StopReason(stop_reason), paragraphs(note, self._note))

    # Its trials

    def start_trial(
        self, trial_id: str, name: str, params: Mapping[str, object], note: str = ""
    ) -> str:
        """Open the child run of a trial and return its id.

        A trial that has a run, from this driver or an earlier one, continues in it.
        """
        trial = self._trials.get(trial_id)
        if trial is None and trial_id in self._may_have_run:
            trial = self._find_trial(trial_id, note)
        self._may_have_run.add(trial_id)
        if trial:
            trial.run.reopen()
            trial.running = True
        else:
            tags = {
                "mlflow.parentRunId": self._parent.run_id,
                "sweep.name": self._name,
                "tune.trial_id": trial_id,
                **({} if self._goals.score == SCORE else {SCORE_TAG: self._goals.score}),
            }
            run_id = self._create_run(name, note, tags)
            progress = TrialProgress(trial_id, goals=self._goals)
            trial = TrialRun(RunWriter(self._client, run_id), note, progress)
        trial.run.log_params(params)
        self._trials[trial_id] = trial
        return trial.run.run_id

    def settled_trials(self) -> dict[str, str]:
        """The stop reason of each of the sweep's trials whose run has been closed."""
        runs = self.store.trial_runs(self._parent.run_id)
        return {
            run.data.tags["tune.trial_id"]: run.data.tags["stop_reason"]
            for run in runs
            if run.info.status != "RUNNING" and "stop_reason" in run.data.tags
        }

    def log_epoch(
        self, trial_id: str, epoch: int, metrics: Mapping[str, float], at_s: float | None = None
    ) -> None:
        """Write the metrics of a finished epoch, and the best so far, at step `epoch`.

        Metrics that are not finite are left out. An epoch that was written already, as when a
        trial resumes from a checkpoint, is not written twice. `at_s` is the time of day, in
        seconds since 1970, at which the epoch ended.
        """
        trial = self._trials[trial_id]
        if epoch <= trial.progress.epoch:
            return
        at_ms = trial.seen_ms.setdefault(epoch, int(at_s * 1000) if at_s else now_ms())
        progress = replace(trial.progress)
        progress.finish_epoch(epoch, metrics)
        trial.run.log_metrics({**metrics, **progress.best_metrics}, epoch, at_ms)
        if progress.best > self._best:
            self._parent.log_metrics({self._goals.best: progress.best}, 0, at_ms)
            self._best = progress.best
        trial.progress = progress
        trial.seen_ms.clear()

    def log_cost(self, trial_id: str, device_s: float, at_s: float) -> None:
        """Write the device seconds of a trial, up to the time `at_s`."""
        trial = self._trials[trial_id]
        trial.run.log_metrics({COST: device_s}, trial.progress.epoch, int(at_s * 1000))

    def log_figures(
        self, trial_id: str, figures: Mapping[str, float], epoch: int, at_s: float
    ) -> None:
        """Write the figures of a trial's best model, which is of `epoch`, at the time `at_s`."""
        self._trials[trial_id].run.log_metrics(figures, epoch, int(at_s * 1000))

    def log_machine(self, trial_id: str, machine: Mapping[str, str]) -> None:
        """Write the machine that a trial was trained on, as the tags `machine.*`."""
        tags = {f"{MACHINE}{name}": value for name, value in machine.items()}
        self._trials[trial_id].run.set_tags(tags)

    def log_initial_weights(self, trial_id: str, record: Mapping[str, str]) -> None:
        """Write where a trial's initial weights came from, as the tags `weights.*`."""
        tags = {f"{WEIGHTS_FROM}{name}": value for name, value in record.items()}
        self._trials[trial_id].run.set_tags(tags)

    def log_settings(self, trial_id: str, record: Mapping[str, str]) -> None:
        """Write which of a trial's settings were read back, as the tags `settings.*`."""
        tags = {f"{SETTINGS}{name}": paths for name, paths in record.items()}
        self._trials[trial_id].run.set_tags(tags)

    def log_artifacts(self, trial_id: str, path: Path, folder: str = "") -> None:
        """Add a file, or all files of a folder, to a trial's artifacts, below `folder`."""
        self._trials[trial_id].run.log_path(path, folder)

    def log_image(self, trial_id: str, picture: Path, key: str, step: int) -> None:
        """Add an image to the series `key`, which the UI compares across trials and epochs."""
        self._trials[trial_id].run.log_image(picture, key, step)

    def log_checkpoint(self, trial_id: str, folder: Path) -> None:
        """Add a trial's weights and config (from `folder`) to its run.

        The trial may be one that an earlier driver closed.
        """
        run = self._any_trial(trial_id).run
        for name in (WEIGHTS, CONFIG):
            run.log_path(folder / name, CHECKPOINT)
        run.set_tags({CHECKPOINT: CHECKPOINT})

    def remove_checkpoints(self, kept: Collection[str]) -> None:
        """Remove the weights and configs of all of the sweep's trials except `kept`."""
        holds = f"tags.`{CHECKPOINT}` = '{CHECKPOINT}'"
        for run in self.store.trial_runs(self._parent.run_id, holds):
            if run.data.tags["tune.trial_id"] not in kept:
                RunWriter(self._client, run.info.run_id).remove_folder(CHECKPOINT)
                self._client.delete_tag(run.info.run_id, CHECKPOINT)

    def end_trial(
        self,
        trial_id: str,
        stop_reason: StopReason | str,
        error_text: str | None = None,
    ) -> None:
        """Close a trial's run; `error_text`, a traceback, becomes its artifact `error.txt`."""
        trial = self._trials[trial_id]
        if error_text:
            trial.run.log_content("error.txt", error_text)
        reason = StopReason(stop_reason)
        trial.run.close(reason, paragraphs(trial.note, trial_outcome(reason, trial.progress)))
        trial.running = False

    def run_id(self, trial_id: str) -> str:
        """The MLflow run of a trial, which may be one that an earlier driver closed."""
        return self._any_trial(trial_id).run.run_id

    def trials_url(self, ui: str | None = None, *, charts: bool = False) -> str:
        """The URL of the sweep's trials in the MLflow UI, see `mlflow_ui.trials_url`."""
        return trials_url(self.store, self._parent.run_id, ui, charts=charts)

    @property
    def _parent(self) -> RunWriter:
        assert self._sweep, "start_sweep or resume_sweep comes first"
        return self._sweep

    def _create_run(self, name: str, note: str, tags: Mapping[str, object]) -> str:
        described = {"mlflow.note.content": note} if note else {}
        run = self._client.create_run(
            self.store.experiment_id,
            start_time=now_ms(),
            tags=described | {key: str(value) for key, value in tags.items()},
            run_name=name,
        )
        return str(run.info.run_id)

    def _any_trial(self, trial_id: str) -> TrialRun:
        trial = self._trials.get(trial_id) or self._find_trial(trial_id, "")
        assert trial is not None
        return trial

    def _find_trial(self, trial_id: str, note: str) -> TrialRun | None:
        runs = self.store.trial_runs(self._parent.run_id, f"tags.`tune.trial_id` = '{trial_id}'")
        if not runs:
            return None
        run, metrics = runs[0], runs[0].data.metrics
        progress = TrialProgress(
            trial_id,
            epoch=self._last_step(run),
            best=metrics.get(self._goals.best, -math.inf),
            best_epoch=int(metrics.get(BEST_EPOCH, 0)),
            goals=self._goals,
        )
        return TrialRun(RunWriter(self._client, run.info.run_id), note, progress)

    def _last_step(self, run: Run) -> int:
        steps = [
            point.step
            for name in run.data.metrics
            if name in (self._goals.score, "train/loss")
            for point in self._client.get_metric_history(run.info.run_id, name)
        ]
        return max(steps, default=0)


def open_tracking(uri: str | None = None) -> Tracker:
    """A tracker on the store at `uri` (the project's own database by default).

    Raises UserError if it cannot be written or reached (within 15 seconds).
    """
    return Tracker(open_store(uri))


def _driver() -> dict[str, object]:
    """Tags that tell which process writes the sweep."""
    return {"sweep.host": socket.gethostname(), "sweep.pid": os.getpid()}


def _age(run: Run) -> tuple[int, str]:
    return run.info.start_time, run.info.run_id
