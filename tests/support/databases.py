"""MLflow databases without migrations: those run once per process, then tables are copied."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

import pytest
from mlflow.store.db import utils
from sqlalchemy import event
from sqlalchemy.engine import Engine

_migrate = utils._initialize_tables


@contextmanager
def quick_databases():
    """Copy the tables of this process's new sqlite databases, and do not wait for the disk."""
    event.listen(Engine, "connect", _do_not_wait)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "_initialize_tables", _fill)
        yield
    event.remove(Engine, "connect", _do_not_wait)


def new_database(path: Path) -> Path:
    """An MLflow database with its tables and no experiment, for another process."""
    with closing(sqlite3.connect(path)) as new:
        _migrated().backup(new)
    return path


def _fill(engine: Engine) -> None:
    if engine.dialect.name == "sqlite" and engine.url.database:
        new_database(Path(engine.url.database))
    else:
        _migrate(engine)


@cache
def _migrated() -> sqlite3.Connection:
    """The tables as MLflow creates them, in memory."""
    with tempfile.TemporaryDirectory() as folder:
        engine = utils.create_sqlalchemy_engine(f"sqlite:///{folder}/mlflow.db")
        _migrate(engine)
        engine.dispose()
        tables = sqlite3.connect(":memory:", check_same_thread=False)
        with closing(sqlite3.connect(f"{folder}/mlflow.db")) as made:
            made.backup(tables)
    return tables


def _do_not_wait(connection: object, _: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")
