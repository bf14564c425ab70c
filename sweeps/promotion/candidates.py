"""Which trials can be promoted, and the data they are evaluated on.

A candidate had the full budget and kept its weights. Candidates are ordered by the sweep's
objective (`val/miou` unless it has another; the first one of several), the best first; a test split
does not affect the order.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.config.goals import USUAL, Goals, goals_of
from sweeps.config.metric_names import BEST_EPOCH
from sweeps.config.recipe import Recipe
from sweeps.state.stop_reason import StopReason
from sweeps.tracking.store import RETRAINS, TrackingStore
from unetexp.component import decode
from unetexp.data import Dataset, open_dataset
from unetexp.data.collection import Progress
from unetexp.errors import DataError, UserError
from unetexp.tracking.locate import CHECKPOINT
from unetexp.training.config import TrainConfig, decode_recorded, read_tree

if TYPE_CHECKING:
    from mlflow.entities import Run

_NAMED_AT_MOST = 10


@dataclass(frozen=True)
class Candidate:
    """A trial that had the full budget."""

    run: Run
    goals: Goals = USUAL  # of its sweep

    @property
    def run_id(self) -> str:
        return str(self.run.info.run_id)

    @property
    def trial(self) -> str:
        """Its id within the sweep."""
        return str(self.run.data.tags["tune.trial_id"])

    @property
    def score(self) -> float:
        """The best score of its epochs."""
        return float(self.run.data.metrics[self.goals.best])

    @property
    def epoch(self) -> int:
        """Its best epoch, whose weights were kept."""
        return int(self.run.data.metrics[BEST_EPOCH])

    @property
    def has_weights(self) -> bool:
        return CHECKPOINT in self.run.data.tags


@dataclass(frozen=True)
class SourceSweep:
    """A sweep, read from its parent run."""

    run: Run
    recipe: Recipe

    @property
    def name(self) -> str:
        return str(self.run.data.tags["sweep.name"])

    @property
    def goals(self) -> Goals:
        """What its trials are compared by."""
        return goals_of(self.run.data.tags)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the data that its trials were trained on."""
        return str(self.run.data.tags["data.fingerprint"])


def sweep_to_promote(store: TrackingStore, name: str | None) -> SourceSweep:
    """The sweep called `name`, or the newest finished one; UserError where there is none."""
    if name is not None:
        return source_sweep(store, store.sweep_run(name))
    for run in store.sweep_runs():
        if run.info.status == "FINISHED" and not {*RETRAINS} & run.data.tags.keys():
            return source_sweep(store, run)
    raise UserError(
        "there is no finished sweep to promote from. Run one: "
        f"{store.command('run')}; or name one that was interrupted: "
        f"{store.command('promote', 'SWEEP')}"
    )


def sweep_of_run(store: TrackingStore, run_id: str) -> SourceSweep:
    """The sweep of the trial with the run `run_id`; UserError where the run is not a trial."""
    from mlflow.exceptions import MlflowException

    try:
        run = store.client.get_run(run_id)
    except MlflowException:
        raise UserError(
            f"--run {run_id}: there is no such run in the tracking store. A run's id is the last "
            "part of its address in the MLflow UI; "
            f"{store.command('compare', '--format', 'csv')} lists them."
        ) from None
    parent = run.data.tags.get("mlflow.parentRunId")
    if parent is None:
        raise UserError(
            f"--run {run_id}: this run is not a trial of a sweep. For a sweep give its name: "
            f"{store.command('promote', 'SWEEP')}"
        )
    return source_sweep(store, store.client.get_run(parent))


def full_budget_trials(store: TrackingStore, source: SourceSweep) -> list[Candidate]:
    """The sweep's trials that had the full budget, the best score first."""
    runs = store.trial_runs(source.run.info.run_id, f"tags.stop_reason = '{StopReason.COMPLETED}'")
    goals = source.goals
    scored = [run for run in runs if math.isfinite(run.data.metrics.get(goals.best, math.nan))]
    found = [Candidate(run, goals) for run in scored]
    return sorted(found, key=lambda trial: (-trial.score, trial.trial))


def candidates(
    store: TrackingStore, source: SourceSweep, trials: Sequence[Candidate], run_id: str | None
) -> list[Candidate]:
    """Those of the full-budget `trials` that kept their weights; the run `run_id` first, if given.

    Raises UserError where there are none, or where the run is not among them, naming those that
    are.
    """
    able = [trial for trial in trials if trial.has_weights]
    if not able:
        raise UserError(
            f"no trial of sweep {source.name!r} had the full budget and has its weights in MLflow, "
            "so none can be promoted. Those of the best (budget.keep_models) are written when a "
            f"sweep ends; resume it: {store.command('run', '--resume', source.name)}"
        )
    if run_id is None:
        return able
    chosen = [trial for trial in able if trial.run_id == run_id]
    if not chosen:
        full = any(trial.run_id == run_id for trial in trials)
        why = "it did not have the full budget of epochs."
        if full:
            why = "its weights were not kept (budget.keep_models). To train it again: "
            why += store.reproduce_command(run_id)
        named = "".join(
            f"\n  {trial.run_id}  trial {trial.trial}, {source.goals.best} {trial.score:.4f}"
            for trial in able[:_NAMED_AT_MOST]
        )
        raise UserError(
            f"--run {run_id}: this trial cannot be promoted, because {why}\nThose of sweep "
            f"{source.name!r} that can be:{named}"
        )
    return chosen + [trial for trial in able if trial.run_id != run_id]


def open_data(source: SourceSweep, on_progress: Progress | None = None) -> Dataset:
    """The sweep's data set; DataError where it has changed since the sweep's training."""
    data = open_dataset(source.recipe.base.data, on_progress=on_progress, to_train=False)
    if data.fingerprint != source.fingerprint:
        raise DataError(
            f"the data of sweep {source.name!r} has changed: images of the test split may have "
            "been used for training, and metrics are not comparable. Restore it, or run a new "
            f"sweep on the changed data.\n  fingerprint then  {source.fingerprint}\n"
            f"  fingerprint now   {data.fingerprint}"
        )
    return data


def config_of(store: TrackingStore, trial: Candidate) -> TrainConfig:
    """The config that a trial was trained with."""
    with tempfile.TemporaryDirectory() as scratch:
        path = store.client.download_artifacts(trial.run_id, "config.yaml", scratch)
        return decode_recorded(read_tree(Path(path)))


def source_sweep(store: TrackingStore, run: Run) -> SourceSweep:
    """The sweep with the parent run `run`; UserError where its recipe cannot be read."""
    from mlflow.exceptions import MlflowException

    name = run.data.tags["sweep.name"]
    with tempfile.TemporaryDirectory() as scratch:
        try:
            path = store.client.download_artifacts(run.info.run_id, "recipe.yaml", scratch)
        except (MlflowException, OSError) as error:
            raise UserError(
                f"sweep {name!r}: its recipe, the artifact recipe.yaml of run {run.info.run_id}, "
                f"cannot be read: {error}"
            ) from None
        tree = read_tree(Path(path))
    where = f"sweep {name!r}, recipe.yaml"
    base = decode_recorded(tree.get("base", {}), where).tree()
    recipe: Recipe = decode(Recipe, {**tree, "base": base}, where)
    return SourceSweep(run, recipe)
