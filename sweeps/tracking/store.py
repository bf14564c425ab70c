"""The tracking store: its schema and its experiment, created where they are missing.

A tracking URI that cannot be used is found here, before a sweep starts.
"""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from sweeps.config.goals import USUAL
from sweeps.text import installed, script
from unetexp.errors import UserError, did_you_mean
from unetexp.tracking.locate import DATABASE_ANSWER_S, open_client
from unetexp.tracking.locate import local_path as local_path
from unetexp.tracking.moved import (
    ARTIFACTS,
    FOLDER,
    MovedStoreError,
    recorded_folder,
    require_unmoved,
)
from unetexp.tracking.moved import EXPERIMENT as EXPERIMENT
from unetexp.tracking.server import answered, public_uri, scheme_of, without_secrets
from unetexp.tracking.uri import PROJECT_ROOT as PROJECT_ROOT
from unetexp.tracking.uri import (
    absolute,
    check_database,
    check_place,
    sqlite_path,
    tracking_option,
    unusable,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

LOST_FROM = "sweep.lost_from"  # tag of a run that was detached from a sweep with a damaged ledger
CONFIRMED = "sweep.confirmed"  # tag of a sweep whose best were trained again: with what result
CONFIRMS = "sweep.confirms"  # tag of a sweep that trains another's best again with new seeds
FINAL_OF = "sweep.final_of"  # tag of a sweep that trains another's best to the end
RETRAINS = (CONFIRMS, FINAL_OF)  # sweeps that search nothing
PRIMARY_METRIC = "mlflow.experiment.primaryMetric.name"  # of the newest sweep
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # opens the training view
_LOCK_S = 120.0


@dataclass(frozen=True)
class TrackingStore:
    """An open tracking store."""

    uri: str  # absolute; may hold credentials
    client: MlflowClient
    experiment_id: str
    moved: bool = False  # its addresses name files in another place: it is only read

    def command(self, name: str, *arguments: str) -> str:
        """The command `sweeps/NAME.py` with the option for this store."""
        return script(name, *arguments, *self._option())

    def reproduce_command(self, run_id: str) -> str:
        """The command that trains a trial again, with the option for this store."""
        return installed("unetexp", "reproduce", run_id, *self._option())

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """A block that excludes other drivers, where the store is a file on this machine."""
        if scheme_of(self.uri) == "sqlite":
            with FileLock(f"{sqlite_path(self.uri)}-lock", timeout=_LOCK_S):
                yield
        else:
            yield

    def runs(self, filter_string: str) -> list[Run]:
        """All runs of the experiment that match, the newest first."""
        found: list[Run] = []
        token: str | None = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], filter_string, max_results=1000, page_token=token
            )
            found += page
            token = page.token
            if not token:
                return found

    def sweep_runs(self, name: str | None = None) -> list[Run]:
        """The parent runs of all sweeps, or of those called `name`, the newest first."""
        named = f" AND tags.`sweep.name` = '{name}'" if name is not None else ""
        is_sweep = "tags.`sweep.storage` LIKE '%' AND tags.`sweep.name` LIKE '%'"
        return self.runs(is_sweep + named)

    def sweep_run(self, name: str) -> Run:
        """The parent run of the sweep called `name`; UserError if there is none."""
        runs = {run.data.tags["sweep.name"]: run for run in self.sweep_runs()}
        if name not in runs:
            raise UserError(
                f"there is no sweep named {name!r} at {public_uri(self.uri)}."
                f"{did_you_mean(name, runs)} List them: "
                f"{self.command('run', '--list')}"
            )
        return runs[name]

    def _option(self) -> tuple[str, ...]:
        return tracking_option(None if self.uri == absolute(None) else self.uri)

    def trial_runs(self, sweep_run: str, condition: str = "") -> list[Run]:
        """The child runs of the parent run `sweep_run` that meet `condition`."""
        also = f" AND {condition}" if condition else ""
        return self.runs(f"tags.mlflow.parentRunId = '{sweep_run}'{also}")


def check_tracking(uri: str | None) -> str:
    """The absolute address of the store, after a check that changes nothing.

    Raises UserError for an address of no known kind, a place that cannot be written and a
    server that does not answer within 15 seconds.
    """
    uri = absolute(uri)
    check_place(uri)
    if scheme_of(uri).startswith("http"):
        answered(uri, lambda: open_client(uri).search_experiments(max_results=1))
    return uri


def open_store(uri: str | None) -> TrackingStore:
    """Open the store; creates the database and the experiment where they are missing.

    Several processes may do so at once. Raises UserError as `check_tracking` does, and
    MovedStoreError for a database that is not where it was created.
    """
    return _open_store(uri, None)


def _open_store(uri: str | None, on_moved: Callable[[str], None] | None) -> TrackingStore:
    uri = check_tracking(uri)
    if scheme_of(uri) == "sqlite":
        path = sqlite_path(uri)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}-lock", timeout=_LOCK_S):
                check_database(path, write=True)
                return _open(uri, path.with_name(ARTIFACTS), on_moved)
        except OSError as error:
            raise unusable(path, error) from None
    if scheme_of(uri).startswith("http"):
        return answered(uri, lambda: _open(uri, None))
    return answered(uri, lambda: _open(uri, None), DATABASE_ANSWER_S)


def open_existing(
    uri: str | None, on_moved: Callable[[str], None] | None = None
) -> TrackingStore | None:
    """As `open_store`, but None where the database has not been created yet.

    With `on_moved` a database that was moved is opened for reading, after a call with a message.
    """
    uri = check_tracking(uri)
    if scheme_of(uri) == "sqlite" and not sqlite_path(uri).exists():
        return None
    return _open_store(uri, on_moved)


def _open(
    uri: str, artifacts: Path | None, on_moved: Callable[[str], None] | None = None
) -> TrackingStore:
    """Connect, which creates or checks the schema, and create or check the experiment."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        client = open_client(uri)
        experiment = client.get_experiment_by_name(EXPERIMENT) or _create(client, artifacts)
        if experiment.lifecycle_stage != "active":
            raise UserError(
                f"the experiment {EXPERIMENT!r} at {public_uri(uri)} was deleted. Restore it: "
                f"MLFLOW_TRACKING_URI={shlex.quote(public_uri(uri))} "
                + installed(
                    "mlflow", "experiments", "restore", "--experiment-id", experiment.experiment_id
                )
            )
        try:
            require_unmoved(uri, experiment)
        except MovedStoreError as error:
            if on_moved is None:
                raise
            on_moved(str(error))
            return TrackingStore(uri, client, experiment.experiment_id, moved=True)
        primary = {PRIMARY_METRIC: experiment.tags.get(PRIMARY_METRIC, USUAL.best)}
        tags = {**_EXPERIMENT_TAGS, **primary, **_folder_tag(experiment, artifacts)}
        for key, value in tags.items():
            if experiment.tags.get(key) != value:
                client.set_experiment_tag(experiment.experiment_id, key, value)
    except (MlflowException, SQLAlchemyError) as error:
        reason = without_secrets(str(error), uri)
        raise UserError(f"the tracking store {public_uri(uri)} cannot be used: {reason}") from None
    if artifacts is not None:
        _check_artifacts(experiment.artifact_location)
    return TrackingStore(uri, client, experiment.experiment_id)


def _folder_tag(experiment: Experiment, artifacts: Path | None) -> dict[str, str]:
    """The tag that later shows whether the database was moved."""
    if artifacts is None or FOLDER in experiment.tags:
        return {}
    return {FOLDER: str(recorded_folder(experiment) or artifacts.parent.resolve())}


def _create(client: MlflowClient, artifacts: Path | None) -> Experiment:
    from mlflow.exceptions import MlflowException

    location = artifacts.as_uri() if artifacts else None
    try:
        return client.get_experiment(client.create_experiment(EXPERIMENT, location))
    except MlflowException:
        other = client.get_experiment_by_name(EXPERIMENT)  # another process was faster
        if other is None:
            raise
        return other


def _check_artifacts(location: str) -> None:
    folder = local_path(location)
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / f".scratch-{os.getpid()}-{threading.get_ident()}"
        scratch.touch()
        scratch.unlink()
    except OSError as error:
        raise UserError(
            f"the artifact folder {folder} cannot be written: {error}. It was set when the "
            "database was created; use another database with --tracking-uri sqlite:///PATH."
        ) from None
