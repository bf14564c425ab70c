"""Listing all sweeps and deleting one."""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from rich.filesize import decimal
from rich.table import Table

from sweeps.config.goals import USUAL, goals_of
from sweeps.state.storage import (
    folder_bytes,
    is_remote,
    remove_files,
    remove_folder,
    require_sweep_files,
)
from sweeps.tracking.mlflow_ui import remove_view
from sweeps.tracking.own_files import require_own_files
from sweeps.tracking.store import EXPERIMENT, LOST_FROM, PROJECT_ROOT, TrackingStore, local_path
from unetexp.errors import UserError

if TYPE_CHECKING:
    from mlflow.entities import Run

_STATES = {
    "SCHEDULED": "running",
    "FINISHED": "finished",
    "KILLED": "interrupted",
    "FAILED": "failed",
}
_LONG_NAME = 40  # characters; a shorter name is not wrapped, so that it can be copied
_SAME_PROCESS_S = 3600.0  # a process that started later only reuses the driver's pid


@dataclass(frozen=True)
class SweepRow:
    """One sweep as `--list` shows it."""

    name: str
    state: str  # running, running on HOST, finished, interrupted, failed
    trials: int
    best: float | None
    score: str  # the metric of `best`
    disk_bytes: int | None  # on this machine; None where the storage is elsewhere
    started: datetime


def sweep_rows(store: TrackingStore) -> list[SweepRow]:
    """All sweeps of the store, the newest first."""
    trials: dict[str, list[Run]] = defaultdict(list)
    for run in store.runs("tags.mlflow.parentRunId LIKE '%'"):
        trials[run.data.tags["mlflow.parentRunId"]].append(run)
    return [_row(run, trials[run.info.run_id]) for run in store.sweep_runs()]


def sweep_table(rows: Sequence[SweepRow]) -> Table:
    """The rows as a table for the terminal."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    whole = max((len(row.name) for row in rows), default=0) <= _LONG_NAME
    table.add_column("name", overflow="fold", no_wrap=whole)
    table.add_column("state")
    usual = USUAL.score
    for heading in ("trials", f"best {usual}", "disk"):
        table.add_column(heading, justify="right")
    table.add_column("started")
    for row in rows:
        table.add_row(
            row.name,
            row.state,
            str(row.trials),
            _best(row, usual),
            "?" if row.disk_bytes is None else decimal(row.disk_bytes),
            f"{row.started:%Y-%m-%d %H:%M}",
        )
    return table


def _best(row: SweepRow, usual: str) -> str:
    """The best score, with its metric where that is not the usual one."""
    if row.best is None:
        return "-"
    return f"{row.best:.4f}" if row.score == usual else f"{row.score} {row.best:.4f}"


def check_deletable(store: TrackingStore, name: str) -> str:
    """What deleting the sweep would remove, as text for the confirmation prompt.

    Raises UserError if there is no such sweep, if it is running, or if a registered model has a
    version from it.
    """
    sweep = store.sweep_run(name)
    require_own_files(store.uri, sweep)
    row = _row(sweep, store.trial_runs(sweep.info.run_id))
    if row.state == "running":
        raise UserError(
            f"sweep {name!r} is running, as process {sweep.data.tags['sweep.pid']}. Stop it with "
            "Ctrl-C first."
        )
    _require_unregistered(store, name, [sweep, *_below(store, sweep)])
    for place in _places(sweep):
        require_sweep_files(place, name)
    host = sweep.data.tags.get("sweep.host")
    where = "" if host == socket.gethostname() else f" (only files of {host} that are here)"
    size = "" if row.disk_bytes is None else f", {decimal(row.disk_bytes)}"
    return (
        f"sweep {name!r} ({row.state}): {row.trials} trials{size}, its runs and artifacts in "
        f"MLflow and its files in {sweep.data.tags['sweep.storage']}{where}"
    )


def delete_sweep(store: TrackingStore, name: str) -> None:
    """Delete a sweep: its files, its artifacts, and its runs, which MLflow's `gc` then erases.

    The parent run goes last, so that an interrupted deletion can be repeated. Raises UserError as
    `check_deletable` does, and where files cannot be removed.
    """
    check_deletable(store, name)
    sweep = store.sweep_run(name)
    try:
        for place in _places(sweep):
            remove_files(place)
        remove_view(store, sweep.info.run_id)
        for run in [*_below(store, sweep), sweep]:
            _remove_artifacts(store, run)
            store.client.delete_run(run.info.run_id)
    except OSError as error:
        raise UserError(
            f"sweep {name!r} could not be deleted completely: {error}. Fix the cause and delete it "
            "again."
        ) from None


def _below(store: TrackingStore, sweep: Run) -> list[Run]:
    """The runs of the sweep's trials, including those lost with a damaged ledger."""
    lost = store.runs(f"tags.`{LOST_FROM}` = '{sweep.data.tags['sweep.name']}'")
    return [*store.trial_runs(sweep.info.run_id), *lost]


def _row(sweep: Run, trials: Sequence[Run]) -> SweepRow:
    tags = sweep.data.tags
    goals = goals_of(tags)
    scores = [
        run.data.metrics[goals.best] for run in [sweep, *trials] if goals.best in run.data.metrics
    ]
    storage = tags["sweep.storage"]
    artifacts = [folder for run in [sweep, *trials] if (folder := _artifact_folder(run))]
    folders = [*artifacts, Path(storage)]
    return SweepRow(
        name=tags["sweep.name"],
        state=_state(sweep),
        trials=len(trials),
        best=max(scores, default=None),
        score=goals.score,
        disk_bytes=None if is_remote(storage) else sum(map(folder_bytes, folders)),
        started=datetime.fromtimestamp(sweep.info.start_time / 1000),
    )


def _places(sweep: Run) -> list[str]:
    """The sweep's storage and, where that is remote, the driver's folder on this machine."""
    storage, name = sweep.data.tags["sweep.storage"], sweep.data.tags["sweep.name"]
    return [storage, str(PROJECT_ROOT / "sweep_runs" / name)] if is_remote(storage) else [storage]


def _state(sweep: Run) -> str:
    """The state; a run left open by a driver that is gone counts as interrupted."""
    if sweep.info.status != "RUNNING":
        return _STATES[sweep.info.status]
    host = sweep.data.tags.get("sweep.host", "another machine")
    if host != socket.gethostname():
        return f"running on {host}"
    try:
        born = psutil.Process(int(sweep.data.tags["sweep.pid"])).create_time()
    except psutil.NoSuchProcess:
        return "interrupted"
    alive = born <= sweep.info.start_time / 1000 + _SAME_PROCESS_S
    return "running" if alive else "interrupted"


def _require_unregistered(store: TrackingStore, name: str, runs: Sequence[Run]) -> None:
    """A registered model's files are the artifacts of its run."""
    ids = {run.info.run_id for run in runs}
    held = [
        version
        for version in store.client.search_model_versions(f"name = '{EXPERIMENT}'")
        if version.run_id in ids
    ]
    if held:
        versions = ", ".join(str(version.version) for version in held)
        raise UserError(
            f"sweep {name!r} cannot be deleted: version {versions} of the registered model "
            f"{EXPERIMENT!r} comes from it. Promote another model and delete that version first."
        )


def _remove_artifacts(store: TrackingStore, run: Run) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    folder = _artifact_folder(run)
    if folder is not None:
        remove_folder(folder)
        return
    try:
        repository = get_artifact_repository(run.info.artifact_uri, tracking_uri=store.uri)
        repository.delete_artifacts()  # type: ignore[no-untyped-call]
    except (MlflowException, NotImplementedError) as error:
        raise OSError(f"artifacts of run {run.info.run_id}: {error}") from error


def _artifact_folder(run: Run) -> Path | None:
    """The local folder that holds all of a run's artifacts; None where they are elsewhere."""
    folder = local_path(run.info.artifact_uri)
    if folder is None:
        return None
    return folder.parent if folder.parent.name == run.info.run_id else folder
