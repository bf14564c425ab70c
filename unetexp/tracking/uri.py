"""The address of the tracking store: its default, its forms, and whether it can be used.

Does not use MLflow, which would retry for minutes on problems that are found here.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from unetexp.errors import UserError, not_a_choice
from unetexp.system.shell import PROJECT_ROOT as PROJECT_ROOT
from unetexp.tracking.server import PORTS, knock, public_uri, scheme_of

PROJECT_DATABASE = f"sqlite:///{PROJECT_ROOT / 'mlflow.db'}"  # what `make ui` shows
VARIABLE = "MLFLOW_TRACKING_URI"
_BUSY_S = 30.0
# What a killed writer left (a rollback journal, a write-ahead log) cannot be mended by a reader
_TO_RECOVER = ("SQLITE_READONLY_ROLLBACK", "SQLITE_READONLY_RECOVERY", "SQLITE_READONLY_CANTINIT")
_NO_SUCH_PLACE = (
    "Allowed: sqlite:///PATH (a file, the default), http(s)://HOST:PORT (an MLflow server), "
    "postgresql://, mysql:// or mssql:// (a database)."
)


def default_uri() -> str:
    """The default store: $MLFLOW_TRACKING_URI, else the project's database."""
    return os.environ.get(VARIABLE) or PROJECT_DATABASE


def tracking_option(uri: str | None) -> tuple[str, ...]:
    """The options of a printed command that uses the store `uri`; none for None, the default.

    A password in the address is left out.
    """
    return ("--tracking-uri", public_uri(uri)) if uri else ()


def absolute(uri: str | None) -> str:
    """The full address, the default's for None. Raises UserError for an unknown kind."""
    uri = default_uri() if uri is None else uri
    scheme = scheme_of(uri)
    if scheme == "sqlite":
        return f"sqlite:///{sqlite_path(uri)}"
    if scheme in PORTS:
        return uri if uri.endswith("://") else uri.rstrip("/")
    if "://" in uri:
        raise UserError(
            f"{not_a_choice(f'tracking URI {public_uri(uri)}', scheme, ['sqlite', *PORTS])}. "
            f"{_NO_SUCH_PLACE}"
        )
    raise UserError(
        f"tracking URI: {public_uri(uri)!r} is a plain path or a name, and MLflow refuses "
        f"to keep runs in plain files. {_NO_SUCH_PLACE}"
    )


def check_place(uri: str, *, write: bool = True) -> None:
    """Check the place that the absolute `uri` names; no run is created or changed.

    Raises UserError for a database file that cannot be read (or, with `write`, written or created)
    and for a server that does not accept connections.
    """
    if scheme_of(uri) != "sqlite":
        knock(uri)
    elif write:
        _check_writable(sqlite_path(uri))
    else:
        check_database(sqlite_path(uri), write=False)


def sqlite_path(uri: str) -> Path:
    """The file of a sqlite address; UserError if it names none that MLflow can read."""
    name = uri.partition("://")[2].removeprefix("/")
    if not name or name.startswith(":"):
        raise UserError(f"tracking URI: {uri!r} names no file. Write sqlite:///PATH/mlflow.db.")
    path = Path(name).expanduser().absolute()
    if odd := [letter for letter in "%?#" if letter in str(path)]:
        raise unusable(path, f"MLflow cannot read a path with {' or '.join(odd)} in it")
    return path


def _check_writable(path: Path) -> None:
    place = path
    while not place.exists():
        place = place.parent
    if place == path:
        check_database(path, write=False)
    elif not place.is_dir():
        raise unusable(path, f"{place} is not a folder")
    if not os.access(place, os.W_OK):
        raise unusable(path, f"no permission to write to {place}")


def check_database(path: Path, *, write: bool) -> None:
    """Open the file as sqlite would, and with `write` create it if needed. Raises UserError.

    A transaction that a killed process left half-way is rolled back, as by any other opening.
    """
    if path.is_dir():
        raise unusable(path, "it is a folder")
    try:
        try:
            _open(path, "rwc" if write else "ro")
        except sqlite3.OperationalError as error:
            if write or error.sqlite_errorname not in _TO_RECOVER:
                raise
            _open(path, "rw")
    except sqlite3.Error as error:
        raise unusable(path, error) from None


def _open(path: Path, mode: str) -> None:
    place = f"{path.as_uri()}?mode={mode}"
    with closing(sqlite3.connect(place, uri=True, timeout=_BUSY_S)) as database:
        database.execute("SELECT name FROM sqlite_master LIMIT 1").fetchone()
        if mode == "rwc":
            database.execute("BEGIN IMMEDIATE")
            database.rollback()


def unusable(path: Path, reason: object) -> UserError:
    """The error for a `path` that cannot be the tracking database."""
    return UserError(
        f"tracking database {path} cannot be used: {reason}. Name another with "
        "--tracking-uri sqlite:///PATH/mlflow.db."
    )
