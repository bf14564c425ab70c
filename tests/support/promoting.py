"""`python sweeps/promote.py` in this process, and what it has left in the store."""

from __future__ import annotations

import shutil

from mlflow import MlflowClient
from typer.testing import CliRunner

from sweeps.cli.promote import app
from sweeps.promotion.registry import MODEL, champion, version_of
from sweeps.tracking.store import local_path, open_store


def copy_of(database, name):
    """The address of a copy beside the database: elsewhere it would be one that was moved."""
    copy = database.with_name(f"{name}.db")
    shutil.copyfile(database, copy)
    return f"sqlite:///{copy}"


def call(uri, *arguments):
    """Run the command in this process; returns its exit code and all that it said."""
    flags = ["--gpus", "0", "--tracking-uri", uri]
    done = CliRunner().invoke(app, [*map(str, arguments), *flags])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def aliases(uri):
    """Version of the champion and of the previous one."""
    store = open_store(uri)
    return tuple(
        found and found.version for found in (champion(store), version_of(store, "previous"))
    )


def trial_run(uri, sweep, trial):
    store = open_store(uri)
    runs = store.trial_runs(store.sweep_run(sweep).info.run_id)
    return next(run for run in runs if run.data.tags["tune.trial_id"] == trial)


def read_card(uri, version):
    source = MlflowClient(uri, uri).get_model_version(MODEL, version).source
    return (local_path(source) / "card.md").read_text(encoding="utf-8")


def final_runs(uri, name):
    """The runs of a final training, or of any other sweep."""
    store = open_store(uri)
    return store.trial_runs(store.sweep_run(name).info.run_id)
