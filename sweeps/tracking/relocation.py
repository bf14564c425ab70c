"""Rewrites the addresses in a moved project: in its database and in its sweeps' files.

Every text in the database that names a file in the old place is changed to name it in the new one,
whichever table MLflow keeps it in. Files in the old place are neither read nor changed.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from yaml import YAMLError

from sweeps.state.moved_paths import Move, Moves
from sweeps.state.storage import is_remote
from sweeps.text import count
from sweeps.tracking.own_files import PROJECT, SWEEPS
from sweeps.tracking.store import EXPERIMENT, PROJECT_ROOT, TrackingStore, open_existing
from unetexp.errors import UserError
from unetexp.tracking.moved import (
    ARTIFACTS,
    FOLDER,
    local_path,
    moved_from,
    same_place,
)
from unetexp.tracking.server import public_uri, scheme_of
from unetexp.tracking.uri import absolute, sqlite_path

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Run

_LOCK_S, _BUSY_S = 120.0, 30.0
_NO_ADDRESSES = ("metrics", "latest_metrics", "alembic_version")  # may have millions of rows
_ARTIFACT_FILES = ("recipe.yaml", "config.yaml")  # name the data, which may have moved


@dataclass(frozen=True)
class Relocation:
    """The planned changes."""

    database: Path
    moves: tuple[Move, ...]  # old folder, new folder
    sweeps: int

    def describe(self) -> str:
        """The planned changes, as text before the confirmation prompt."""
        lines = [f"  {old} -> {new}" for old, new in self.moves]
        return "\n".join(
            [f"Addresses in {self.database}, of {count(self.sweeps, 'sweep')}:", *lines]
        )


@dataclass(frozen=True)
class Relocated:
    """The changes that were made."""

    copy: Path  # of the database as it was
    values: int
    files: int


def plan_relocation(uri: str | None) -> Relocation | None:
    """The changes that the store needs; None where every address is right.

    Raises UserError for a server, a store that does not exist, and a database that was moved
    without its artifacts.
    """
    uri = absolute(uri)
    if scheme_of(uri) != "sqlite":
        raise UserError(
            f"--relocate: {public_uri(uri)} is a server, which keeps its artifacts itself. If "
            "the server's own folder was moved, move it back or make the old place a link to the "
            "new one. --relocate is for a database file, sqlite:///PATH."
        )
    store = open_existing(uri, on_moved=lambda _: None)
    if store is None:
        raise UserError(f"--relocate: there is no database {sqlite_path(uri)} yet.")
    experiment = store.client.get_experiment(store.experiment_id)
    sweeps = store.sweep_runs()
    moves = dict([*_database_moves(store, experiment), *_project_moves(sweeps)])
    if not moves:
        return None
    return Relocation(sqlite_path(uri), tuple(moves.items()), len(sweeps))


def relocate(relocation: Relocation) -> Relocated:
    """Rewrite the addresses, all or none; a copy of the old database is kept beside it.

    Raises UserError where something cannot be read or written; it may then be called again.
    """
    moves, path = Moves(relocation.moves), relocation.database
    copy = path.with_name(f"{path.name}.before-relocate-{time.strftime('%Y%m%d-%H%M%S')}")
    try:
        with FileLock(f"{path}-lock", timeout=_LOCK_S), _transaction(path, copy) as database:
            values = _rewrite_database(database, moves)
            _record_folder(database, path.parent.resolve())
            files = sum(_rewrite_files(database, moves))
    except (OSError, sqlite3.Error, ValueError, YAMLError) as error:
        copy.unlink(missing_ok=True)
        raise UserError(
            f"--relocate: {error}. The database was not changed. Fix the cause and run it again."
        ) from None
    return Relocated(copy, values, files)


def _database_moves(store: TrackingStore, experiment: Experiment) -> Iterator[Move]:
    """Moves of the database's folder and of the artifacts beside it, whose old path may differ."""
    then = moved_from(store.uri, experiment)
    if then is None:
        return
    here = sqlite_path(store.uri).parent
    yield then, here
    artifacts = local_path(experiment.artifact_location or "")
    if artifacts is None or artifacts.name != ARTIFACTS:
        return
    if not same_place(artifacts.parent, here):
        _require_artifacts(artifacts, here / ARTIFACTS)
        yield artifacts.parent, here


def _require_artifacts(old: Path, new: Path) -> None:
    if old.exists() and not new.exists():
        raise UserError(
            f"--relocate: the database was moved without its artifacts, which are still in {old}. "
            f"Copy or move that folder to {new} first."
        )


def _project_moves(sweeps: list[Run]) -> Iterator[Move]:
    """Moves of projects that no longer exist and whose sweeps' files are in this one."""
    for sweep in sweeps:
        storage, name = sweep.data.tags["sweep.storage"], sweep.data.tags["sweep.name"]
        usual = Path(storage).parents[1] if Path(storage).parent.name == SWEEPS else None
        recorded = sweep.data.tags.get(PROJECT)
        project = Path(recorded) if recorded else usual
        if project is None or is_remote(storage) or project.exists():
            continue
        if (PROJECT_ROOT / SWEEPS / name / "sweep.json").exists():
            yield project, PROJECT_ROOT


@contextmanager
def _transaction(path: Path, copy: Path) -> Iterator[sqlite3.Connection]:
    """A transaction on the database, after a copy was made of it."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=_BUSY_S)) as database:
        database.execute("BEGIN IMMEDIATE")
        with closing(sqlite3.connect(path)) as reader, closing(sqlite3.connect(copy)) as kept:
            reader.backup(kept)
        try:
            yield database
        except BaseException:
            database.rollback()
            raise
        database.commit()


def _rewrite_database(database: sqlite3.Connection, moves: Moves) -> int:
    """Rewrite every text that is an address; returns how many changed."""
    database.create_function("moved", 1, moves.text, deterministic=True)
    changed = 0
    for table, column in list(_text_columns(database)):
        changed += database.execute(
            f'UPDATE "{table}" SET "{column}" = moved("{column}") '
            f'WHERE typeof("{column}") = \'text\' AND moved("{column}") <> "{column}"'
        ).rowcount
    return changed


def _text_columns(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        if table in _NO_ADDRESSES or table.startswith("sqlite_"):
            continue
        for _, column, kind, *_ in database.execute(f'PRAGMA table_info("{table}")').fetchall():
            if any(word in kind.upper() for word in ("CHAR", "TEXT", "CLOB")):
                yield table, column


def _record_folder(database: sqlite3.Connection, folder: Path) -> None:
    """Write the tag that later shows whether the database was moved again."""
    database.execute(
        "INSERT OR REPLACE INTO experiment_tags (key, value, experiment_id) "
        "SELECT ?, ?, experiment_id FROM experiments WHERE name = ?",
        (FOLDER, str(folder), EXPERIMENT),
    )


def _rewrite_files(database: sqlite3.Connection, moves: Moves) -> Iterator[int]:
    """Rewrite the files in folders that were moved; yields how many changed."""
    for (uri,) in database.execute("SELECT artifact_uri FROM runs").fetchall():
        folder = local_path(uri or "")
        if folder is not None and moves.is_new(folder):
            found = [folder / name for name in _ARTIFACT_FILES if (folder / name).is_file()]
            yield sum(map(moves.file, found))
    places = database.execute(
        "SELECT storage.value, name.value FROM tags AS storage JOIN tags AS name "
        "ON name.run_uuid = storage.run_uuid AND name.key = 'sweep.name' "
        "WHERE storage.key = 'sweep.storage'"
    ).fetchall()
    for storage, name in places:
        folder = PROJECT_ROOT / SWEEPS / name if is_remote(storage) else Path(storage)
        if moves.is_new(folder):
            yield moves.sweep_folder(folder)
