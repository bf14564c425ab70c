"""Repair of a damaged ledger: events before the damage are kept, lost trials run again.

Nothing is removed. The damaged file stays beside the ledger; files of trials whose ends are lost
are moved to a separate folder, and their MLflow runs are detached from the sweep.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from sweeps.config.goals import goals_of
from sweeps.driver.plan import SweepOptions, control_folder
from sweeps.state.ledger import (
    DRIVER_LOCK,
    FILE,
    TRUNCATE,
    Event,
    ended_trials,
    read_ledger,
    truncate,
)
from sweeps.state.storage import Storage
from sweeps.text import count
from sweeps.tracking.own_files import require_own_files
from sweeps.tracking.run_writer import RunWriter, now_ms
from sweeps.tracking.store import LOST_FROM, TrackingStore, open_existing
from unetexp.errors import CheckpointError, UserError

if TYPE_CHECKING:
    from mlflow.entities import Run


def truncate_ledger(name: str, options: SweepOptions) -> list[str]:
    """Cut the sweep's damaged ledger; returns what was done, for the terminal.

    May be called again after a failure: the ledger itself is cut last. Raises UserError for a sweep
    that does not exist or is running, and for a ledger that is not damaged.
    """
    store = open_existing(options.tracking_uri)
    if store is None:
        raise UserError(f"there is no sweep named {name!r}: no sweep has been started yet.")
    sweep = store.sweep_run(name)
    require_own_files(store.uri, sweep)
    storage = Storage(sweep.data.tags["sweep.storage"])
    path = control_folder(storage, name) / FILE
    content = read_ledger(path)
    if content.damage is None:
        raise CheckpointError(f"{path} is not damaged: leave {TRUNCATE} out.")
    try:
        with FileLock(path.with_name(DRIVER_LOCK), timeout=0):
            kept = ended_trials(content.events)
            runs = _detach_runs(store, sweep, kept)
            aside = f"lost-{time.strftime('%Y%m%d-%H%M%S')}"
            moved = storage.set_aside(kept, aside)
            _correct_best(store, sweep, content.events)
            copy = truncate(path)
    except Timeout:
        raise UserError(f"sweep {name!r} is being run by another process. Stop it first.") from None
    return [
        f"{path} was cut before its damaged line; the whole file is kept as {copy.name}",
        f"kept: {count(len(kept), 'trial')} that ended before the damage",
        f"files of {count(moved, 'other trial')} were moved to {storage.root}/{aside}",
        f"{count(runs, 'MLflow run')} detached from the sweep, tagged {LOST_FROM}",
    ]


def _detach_runs(store: TrackingStore, sweep: Run, kept: set[str]) -> int:
    """Take the runs of all trials but the `kept` ones out of the sweep."""
    lost = [
        run
        for run in store.trial_runs(sweep.info.run_id)
        if run.data.tags["tune.trial_id"] not in kept
    ]
    for run in lost:
        store.client.set_tag(run.info.run_id, LOST_FROM, sweep.data.tags["sweep.name"])
        if run.info.status == "RUNNING":
            store.client.set_terminated(run.info.run_id, "KILLED")
        store.client.delete_tag(run.info.run_id, "mlflow.parentRunId")
    return len(lost)


def _correct_best(store: TrackingStore, sweep: Run, events: list[Event]) -> None:
    """Rewrite the sweep's best score, which may have been that of a lost trial."""
    goals = goals_of(sweep.data.tags)
    scores = [event["metrics"].get(goals.score, math.nan) for event in events if "metrics" in event]
    best = max(filter(math.isfinite, scores), default=math.nan)
    writer = RunWriter(store.client, sweep.info.run_id)
    writer.log_metrics({goals.best: best}, 0, now_ms())
