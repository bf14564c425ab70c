"""Whether a tracking database lies where it was made.

MLflow stores absolute addresses of artifacts. In a database that was moved or copied they name
files in the old place: reading finds nothing or somebody else's files, writing changes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from unetexp.errors import UserError
from unetexp.shell import script
from unetexp.tracking.server import scheme_of
from unetexp.tracking.uri import PROJECT_DATABASE, default_uri, sqlite_path, tracking_option

if TYPE_CHECKING:
    from mlflow.entities import Experiment

EXPERIMENT = "unetexp"
ARTIFACTS = "mlartifacts"  # the folder beside a database that this project made
FOLDER = "unetexp.folder"  # tag of the experiment: the folder in which its database was made


class MovedStoreError(UserError):
    """A tracking database that lies elsewhere than it was made."""


def local_path(uri: str) -> Path | None:
    """The local folder or file that an address names; None where it is elsewhere."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(url2pathname(parts.path))
    return Path(uri) if not parts.scheme else None


def recorded_folder(experiment: Experiment) -> Path | None:
    """The folder in which the database was made; None where nothing tells.

    Older versions recorded it only in the place of the artifacts, which was beside the database
    unless somebody had made the experiment by hand.
    """
    if FOLDER in experiment.tags:
        return Path(experiment.tags[FOLDER])
    artifacts = local_path(experiment.artifact_location or "")
    return artifacts.parent if artifacts is not None and artifacts.name == ARTIFACTS else None


def moved_from(uri: str, experiment: Experiment) -> Path | None:
    """The folder in which the database at the absolute `uri` was made, if it has left it."""
    if scheme_of(uri) != "sqlite":
        return None
    path, then = sqlite_path(uri), recorded_folder(experiment)
    if then is None or same_place(then, path.parent) or same_place(then / path.name, path):
        return None
    return then


def same_place(one: Path, other: Path) -> bool:
    """Whether two paths name one file or folder, perhaps through a link or a second mount."""
    try:
        return one == other or one.samefile(other)
    except OSError:
        return False


def require_unmoved(uri: str, experiment: Experiment) -> None:
    """Raise MovedStoreError, with the command that helps, for a database that was moved."""
    then = moved_from(uri, experiment)
    if then is not None:
        raise MovedStoreError(
            f"{sqlite_path(uri)} was moved or copied: it was made in {then}, and the addresses in "
            "it still name files there, which may be somebody else's. Nothing was changed. Put "
            f"the addresses right first (a copy of the database is kept): {relocate_command(uri)}"
        )


def relocate_command(uri: str) -> str:
    """What puts the addresses in the store at the absolute `uri` right."""
    by_default = uri == PROJECT_DATABASE == default_uri()
    return script("run", "--relocate", *tracking_option(None if by_default else uri))
