"""Whether a tracking database is where it was created.

MLflow stores absolute addresses of artifacts. In a database that was moved or copied they name
files in the old place: reading finds no files or those of others, and writing changes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from unetexp.errors import UserError
from unetexp.system.shell import script
from unetexp.tracking.server import scheme_of
from unetexp.tracking.uri import PROJECT_DATABASE, default_uri, sqlite_path, tracking_option

if TYPE_CHECKING:
    from mlflow.entities import Experiment

EXPERIMENT = "unetexp"
ARTIFACTS = "mlartifacts"  # the folder next to a database that this project created
FOLDER = "unetexp.folder"  # tag of the experiment: the folder in which its database was created


class MovedStoreError(UserError):
    """A tracking database that is not where it was created."""


def local_path(uri: str) -> Path | None:
    """The local folder or file that an address names; None if it is not local."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(url2pathname(parts.path))
    return Path(uri) if not parts.scheme else None


def recorded_folder(experiment: Experiment) -> Path | None:
    """The folder in which the database was created; None if it is not recorded.

    Older versions recorded only the folder of the artifacts, which was next to the database unless
    somebody had created the experiment by hand.
    """
    if FOLDER in experiment.tags:
        return Path(experiment.tags[FOLDER])
    artifacts = local_path(experiment.artifact_location or "")
    return artifacts.parent if artifacts is not None and artifacts.name == ARTIFACTS else None


def moved_from(uri: str, experiment: Experiment) -> Path | None:
    """The folder in which the database at the absolute `uri` was created, if it was moved."""
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
            f"{sqlite_path(uri)} was moved or copied: it was created in {then}, and its addresses "
            "still name files there, which may belong to others. Nothing was changed. First "
            f"correct the addresses (a copy of the database is kept): {relocate_command(uri)}"
        )


def relocate_command(uri: str) -> str:
    """The command that corrects the addresses in the store at the absolute `uri`."""
    by_default = uri == PROJECT_DATABASE == default_uri()
    return script("run", "--relocate", *tracking_option(None if by_default else uri))
