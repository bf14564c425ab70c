"""The tracking store: where it is, whether it answers, its schema and its experiment.

Everything wrong with the place a user names is found here, before a sweep starts.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from filelock import FileLock

from sweeps.server import PORTS, answered, knock, public_uri, scheme_of, without_secrets
from unetexp.errors import UserError, did_you_mean, not_a_choice

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

# Read by MLflow when it is imported or used, which is why this file imports it late.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

PROJECT_ROOT = Path(__file__).resolve().parents[1]
EXPERIMENT = "unetexp"
OBJECTIVE = "val/miou"
BEST = f"best/{OBJECTIVE}"
_EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # the UI opens in its training view
    "mlflow.experiment.primaryMetric.name": BEST,
}
_DATABASE_ANSWER_S = 60.0  # a database server's first answer includes making the tables
_LOCK_S = 120.0
_BUSY_S = 30.0
_NO_SUCH_PLACE = (
    "Allowed: sqlite:///PATH (a file, the default), http(s)://HOST:PORT (an MLflow server), "
    "postgresql://, mysql:// or mssql:// (a database)."
)


@dataclass(frozen=True)
class Store:
    """An open tracking store."""

    uri: str  # absolute; may hold credentials
    client: MlflowClient
    experiment_id: str

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """A block that no other driver is in, where the store is a file on this machine."""
        if scheme_of(self.uri) == "sqlite":
            with FileLock(f"{_sqlite_path(self.uri)}-lock", timeout=_LOCK_S):
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
                f"{did_you_mean(name, runs)} List them: python sweeps/run.py --list"
            )
        return runs[name]

    def trial_runs(self, sweep_run: str, condition: str = "") -> list[Run]:
        """The child runs of the parent run `sweep_run` that meet `condition`."""
        also = f" AND {condition}" if condition else ""
        return self.runs(f"tags.mlflow.parentRunId = '{sweep_run}'{also}")


def check_tracking(uri: str | None) -> str:
    """The absolute address of the store, after a look that makes and changes nothing.

    Raises UserError for an address of no known kind, a place that cannot be written and a
    server that does not answer within 15 seconds.
    """
    uri = _absolute(uri)
    scheme = scheme_of(uri)
    if scheme == "sqlite":
        _check_sqlite(_sqlite_path(uri))
    elif scheme in PORTS:
        knock(uri)
        if scheme.startswith("http"):
            answered(uri, lambda: _client(uri).search_experiments(max_results=1))
    elif "://" in uri:
        raise UserError(
            f"{not_a_choice('tracking URI', scheme, ['sqlite', *PORTS])}. {_NO_SUCH_PLACE}"
        )
    else:
        raise UserError(
            f"tracking URI: {public_uri(uri)!r} is a plain path or a name, and MLflow refuses "
            f"to keep runs in plain files. {_NO_SUCH_PLACE}"
        )
    return uri


def open_store(uri: str | None) -> Store:
    """Open the store, making the database and the experiment where they are missing.

    Several processes may do so at once. Raises UserError as `check_tracking` does.
    """
    uri = check_tracking(uri)
    if scheme_of(uri) == "sqlite":
        path = _sqlite_path(uri)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}-lock", timeout=_LOCK_S):
                _check_database(path, write=True)
                return _open(uri, path.with_name("mlartifacts"))
        except OSError as error:
            raise _unwritable(path, error) from None
    if scheme_of(uri).startswith("http"):
        return answered(uri, lambda: _open(uri, None))
    return answered(uri, lambda: _open(uri, None), _DATABASE_ANSWER_S)


def open_existing(uri: str | None) -> Store | None:
    """As `open_store`, but None where the database has not been made yet."""
    uri = check_tracking(uri)
    if scheme_of(uri) == "sqlite" and not _sqlite_path(uri).exists():
        return None
    return open_store(uri)


def local_path(uri: str) -> Path | None:
    """The local folder or file that an artifact address names; None where it is elsewhere."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(url2pathname(parts.path))
    return Path(uri) if not parts.scheme else None


def _absolute(uri: str | None) -> str:
    if uri is None:
        return f"sqlite:///{PROJECT_ROOT / 'mlflow.db'}"
    if scheme_of(uri) == "sqlite":
        return f"sqlite:///{_sqlite_path(uri)}"
    return uri if uri.endswith("://") else uri.rstrip("/")


def _sqlite_path(uri: str) -> Path:
    name = uri.partition("://")[2].removeprefix("/")
    if not name or name.startswith(":"):
        raise UserError(f"tracking URI: {uri!r} names no file. Write sqlite:///PATH/mlflow.db.")
    path = Path(name).expanduser().absolute()
    if odd := [letter for letter in "%?#" if letter in str(path)]:
        raise _unwritable(path, f"MLflow cannot read a path with {' or '.join(odd)} in it")
    return path


def _check_sqlite(path: Path) -> None:
    """Whether the database at `path` can be written, or made."""
    place = path
    while not place.exists():
        place = place.parent
    if place == path:
        _check_database(path, write=False)
    elif not place.is_dir():
        raise _unwritable(path, f"{place} is not a folder")
    if not os.access(place, os.W_OK):
        raise _unwritable(path, f"no permission to write to {place}")


def _check_database(path: Path, *, write: bool) -> None:
    """Open the file as sqlite would, `write` making it if need be: MLflow retries for minutes."""
    if path.is_dir():
        raise _unwritable(path, "it is a folder")
    mode = "rwc" if write else "ro"
    try:
        with closing(
            sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, timeout=_BUSY_S)
        ) as database:
            database.execute("SELECT name FROM sqlite_master LIMIT 1").fetchone()
            if write:
                database.execute("BEGIN IMMEDIATE")
                database.rollback()
    except sqlite3.Error as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, reason: object) -> UserError:
    return UserError(
        f"tracking place {path} cannot be used: {reason}. Name another with "
        "--tracking-uri sqlite:///PATH/mlflow.db."
    )


def _open(uri: str, artifacts: Path | None) -> Store:
    """Connect, which makes or checks the schema, and see to the experiment."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        client = _client(uri)
        experiment = client.get_experiment_by_name(EXPERIMENT) or _create(client, artifacts)
        if experiment.lifecycle_stage != "active":
            raise UserError(
                f"the experiment {EXPERIMENT!r} at {public_uri(uri)} was deleted. Bring it back: "
                f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
            )
        for key, value in _EXPERIMENT_TAGS.items():
            if experiment.tags.get(key) != value:
                client.set_experiment_tag(experiment.experiment_id, key, value)
    except (MlflowException, SQLAlchemyError) as error:
        reason = without_secrets(str(error), uri)
        raise UserError(f"the tracking store {public_uri(uri)} cannot be used: {reason}") from None
    if artifacts is not None:
        _check_artifacts(experiment.artifact_location)
    return Store(uri, client, experiment.experiment_id)


def _create(client: MlflowClient, artifacts: Path | None) -> Experiment:
    from mlflow.exceptions import MlflowException

    location = artifacts.as_uri() if artifacts else None
    try:
        return client.get_experiment(client.create_experiment(EXPERIMENT, location))
    except MlflowException:
        other = client.get_experiment_by_name(EXPERIMENT)  # somebody else was faster
        if other is None:
            raise
        return other


def _check_artifacts(location: str) -> None:
    folder = local_path(location)
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}-{threading.get_ident()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"the artifact folder {folder} cannot be written: {error}. It was set when the "
            "database was made; use another database with --tracking-uri sqlite:///PATH."
        ) from None


def _client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)
