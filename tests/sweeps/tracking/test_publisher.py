"""The sweep's events on their way to an MLflow server that goes away and comes back."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from types import SimpleNamespace

import pytest

from benchmarks.disturbance.victims import Server
from sweeps.config.loading import load_recipe
from sweeps.search.controller import SweepController
from sweeps.state.ledger import FILE, Ledger
from sweeps.state.storage import Storage
from sweeps.tracking import publisher as publisher_module
from sweeps.tracking.publisher import Publisher
from sweeps.tracking.tracker import open_tracking
from tests.support.databases import new_database

EPOCHS, TRIALS = 30, ("0000", "0001")
AWAY_S = 3.0


def score(trial, epoch):
    return 0.5 + int(trial) / 10 - 0.3 / epoch


@pytest.fixture
def server(tmp_path):
    new_database(tmp_path / "mlflow.db")
    server = Server(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def sweep(server, tmp_path):
    """A controller, its publisher, and the messages to the user."""
    tracker = open_tracking(server.uri)
    tracker.start_sweep("far", storage=str(tmp_path))
    changes = {"budget.trials": 2, "epochs": EPOCHS, "asha.enabled": False}
    recipe, said = load_recipe("quickstart", changes), []
    publisher = Publisher(tracker, Storage(str(tmp_path)), recipe, said.append)
    controller = SweepController(recipe, 0, Ledger(tmp_path / FILE), [publisher])
    return controller, publisher, said


def test_what_has_not_arrived_at_the_end_is_said(tmp_path):
    deaf, said = SimpleNamespace(store=SimpleNamespace(uri="http://far")), []
    publisher = Publisher(deaf, Storage(str(tmp_path)), load_recipe("quickstart", {}), said.append)
    publisher({"event": "closed", "reason": "completed"})
    assert not publisher.close(0.5)
    assert "--resume" in said[-1]


def train(controller, first, last):
    for epoch in range(first, last + 1):
        for trial in TRIALS:
            metrics = {"epoch": epoch, "val/miou": score(trial, epoch), "train/loss": 1 / epoch}
            controller.epoch_finished(trial, metrics)


def arrivals(server):
    """Run -> (step, value) of its val/miou, in the order in which the points were stored."""
    with closing(sqlite3.connect(server.folder / "mlflow.db")) as database:
        query = "SELECT run_uuid, step, value FROM metrics WHERE key = 'val/miou' ORDER BY rowid"
        found = {}
        for run, *point in database.execute(query):
            found.setdefault(run, []).append(tuple(point))
        return found


def test_points_wait_for_a_server_that_goes_away(sweep, server, monkeypatch):
    monkeypatch.setattr(publisher_module, "_RETRY_S", (0.5, 1.0))
    controller, publisher, said = sweep
    for trial in TRIALS:
        assert controller.propose().id == trial
        controller.trial_started(trial)
    train(controller, 1, 10)
    while not arrivals(server):
        time.sleep(0.01)
    server.kill()  # in the middle of the first ten epochs
    before = arrivals(server)
    started = time.monotonic()
    train(controller, 11, EPOCHS)
    assert time.monotonic() - started < AWAY_S  # trials do not wait
    time.sleep(AWAY_S)
    assert arrivals(server) == before
    assert sum(map(len, before.values())) < len(TRIALS) * 10
    server.start()
    for trial in TRIALS:
        controller.trial_ended(trial, "completed")
    publisher(controller.ledger.append("closed", reason="completed"))
    assert publisher.close(60)

    assert "write failed, retrying" in said[0]
    assert "writes succeed again" in said[-1]
    curves = [[(epoch, score(trial, epoch)) for epoch in range(1, EPOCHS + 1)] for trial in TRIALS]
    stored = arrivals(server)
    assert sorted(stored.values()) == sorted(curves)
    runs = open_tracking(server.uri).store.runs("")
    assert len(runs) == 1 + len(TRIALS)
    assert {run.info.status for run in runs} == {"FINISHED"}
