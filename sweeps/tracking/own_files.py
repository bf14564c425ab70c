"""Whether this project may change a sweep's files: they may belong to another project.

A sweep's files may be below `--storage`, anywhere. Files inside another project (a checkout, moved
away or not) belong to that project.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.state.storage import is_remote
from unetexp.errors import UserError
from unetexp.system.shell import PROJECT_ROOT
from unetexp.tracking.locate import local_path
from unetexp.tracking.moved import relocate_command, same_place
from unetexp.tracking.server import scheme_of

if TYPE_CHECKING:
    from mlflow.entities import Run

PROJECT = "sweep.project"  # tag of a sweep: the project that it was started in
SWEEPS = "sweep_runs"  # the folder of a project that holds its sweeps' files


def require_own_files(uri: str, sweep: Run, *, storage: bool = True) -> None:
    """Raise UserError where a sweep's artifacts, or its storage, lie in another project.

    `uri` is the absolute address of its store; `storage`: whether its storage will be written.
    """
    name, started_in = sweep.data.tags["sweep.name"], sweep.data.tags.get(PROJECT)
    started_here = started_in is not None and same_place(Path(started_in), PROJECT_ROOT)
    for place in _local_places(sweep, storage=storage and not started_here):
        other = other_project(place, started_in)
        if other is not None:
            raise UserError(
                f"sweep {name!r} has its files in {place}, which belongs to another project "
                f"({other}). Nothing was changed. {_advice(uri, other)}"
            )


def other_project(place: Path, started_in: str | None) -> Path | None:
    """The other project to which the place of a sweep's files belongs; None for this one.

    `started_in` is the recorded project; older sweeps have none.
    """
    for folder in (place, *place.parents):
        if same_place(folder, PROJECT_ROOT):
            return None
        if is_project(folder) or str(folder) == started_in:
            return folder
    usual = place.parent.name == SWEEPS and started_in is None
    return place.parents[1] if usual and not place.parents[1].exists() else None


def is_project(folder: Path) -> bool:
    """Whether the folder is a checkout."""
    return (folder / "sweeps" / "run.py").is_file() and (folder / "unetexp").is_dir()


def _local_places(sweep: Run, *, storage: bool) -> list[Path]:
    root = sweep.data.tags["sweep.storage"]
    artifacts = local_path(sweep.info.artifact_uri)
    places = [Path(root)] if storage and not is_remote(root) else []
    return places if artifacts is None else [*places, artifacts]


def _advice(uri: str, other: Path) -> str:
    if is_project(other):
        return f"Run the command there: {other}."
    if scheme_of(uri) == "sqlite":
        return (
            "If that project was moved here, rewrite the addresses (a copy of the database is "
            f"kept): {relocate_command(uri)}"
        )
    return (
        f"If that project was moved here, make {other} a link to {PROJECT_ROOT}: a server's "
        "addresses cannot be rewritten from here."
    )
