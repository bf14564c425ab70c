"""A tracking database whose last writer was killed in the middle of a transaction."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import pytest

from unetexp.tracking.uri import check_place


@pytest.fixture
def killed(tmp_path):
    """A database as a killed process leaves it: pages half written, their journal beside it."""
    written, path = tmp_path / "written.db", tmp_path / "mlflow.db"
    with closing(sqlite3.connect(written, isolation_level=None)) as database:
        database.execute("CREATE TABLE runs(name)")
        database.execute("INSERT INTO runs VALUES ('before')")
        database.execute("PRAGMA cache_size=1")  # so that pages reach the file before the commit
        database.execute("BEGIN")
        database.executemany("INSERT INTO runs VALUES (?)", [("x" * 1000,)] * 500)
        for suffix in ("", "-journal"):
            shutil.copy(f"{written}{suffix}", f"{path}{suffix}")
        database.rollback()
    return path


@pytest.mark.parametrize("write", [True, False], ids=["to write", "to read"])
def test_it_is_usable_and_holds_what_was_committed(killed, write):
    with (
        closing(sqlite3.connect(f"{killed.as_uri()}?mode=ro", uri=True)) as reader,
        pytest.raises(sqlite3.OperationalError, match="readonly"),  # what a reader alone meets
    ):
        reader.execute("SELECT * FROM runs").fetchall()
    check_place(f"sqlite:///{killed}", write=write)
    with closing(sqlite3.connect(killed)) as database:
        assert database.execute("SELECT name FROM runs").fetchall() == [("before",)]
