"""Listing and removing sweeps in a real MLflow store."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import pytest
from rich.console import Console

from sweeps.tracking.store import open_store
from sweeps.tracking.sweep_list import (
    check_deletable,
    delete_sweep,
    sweep_rows,
    sweep_table,
)
from sweeps.tracking.tracker import Tracker
from unetexp.errors import UserError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return open_store(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")


@pytest.fixture
def folder(tmp_path, request):
    """The storage of a sweep named after the test."""
    name = request.node.name.replace("[", "-").rstrip("]")
    storage = tmp_path / name
    (storage / "trials" / "0000").mkdir(parents=True)
    (storage / "ledger.jsonl").write_bytes(b"x" * 1000)
    return storage


def make_sweep(store, folder, scores=(0.3, 0.5), ended="completed"):
    tracker = Tracker(store)
    tracker.start_sweep(folder.name, storage=str(folder), artifacts={"recipe.yaml": "y" * 500})
    for number, score in enumerate(scores):
        tracker.start_trial(f"{number}", f"trial-{number}", {})
        tracker.log_epoch(f"{number}", 1, {"val/miou": score})
        tracker.end_trial(f"{number}", "completed")
    if ended:
        tracker.end_sweep(ended)
    return tracker


def row_of(store, name):
    return next(row for row in sweep_rows(store) if row.name == name)


def tag_parent(store, name, **tags):
    for key, value in tags.items():
        store.client.set_tag(store.sweep_run(name).info.run_id, key.replace("_", "."), value)


class TestList:
    def test_a_row_tells_state_best_and_disk_use(self, store, folder):
        make_sweep(store, folder)
        row = row_of(store, folder.name)
        assert (row.state, row.trials, row.best, row.disk_bytes) == ("finished", 2, 0.5, 1500)

    @pytest.mark.parametrize(
        ("ended", "state"),
        [("time_budget", "finished"), ("interrupted", "interrupted"), ("error", "failed")],
    )
    def test_states(self, store, folder, ended, state):
        make_sweep(store, folder, ended=ended)
        assert row_of(store, folder.name).state == state

    def test_a_driver_that_is_gone_left_an_interrupted_sweep(self, store, folder):
        make_sweep(store, folder, scores=(), ended=None)
        assert row_of(store, folder.name).state == "running"
        tag_parent(store, folder.name, sweep_pid="4194999")
        row = row_of(store, folder.name)
        assert (row.state, row.trials, row.best) == ("interrupted", 0, None)
        tag_parent(store, folder.name, sweep_host="elsewhere")
        assert row_of(store, folder.name).state == "running on elsewhere"

    def test_a_table(self, store, folder):
        make_sweep(store, folder)
        console = Console(file=io.StringIO(), width=120)
        console.print(sweep_table([row_of(store, folder.name)]))
        text = console.file.getvalue()
        for part in (folder.name, "finished", "0.5000", "1.5 kB"):
            assert part in text

    def test_runs_that_are_no_sweeps_are_passed_over(self, store):
        run = store.client.create_run(store.experiment_id, tags={"sweep.storage": "/x"})
        names = [row.name for row in sweep_rows(store)]
        store.client.delete_run(run.info.run_id)
        assert "" not in names


class TestDelete:
    def test_nothing_of_it_is_left_and_the_name_is_free(self, store, folder):
        make_sweep(store, folder)
        run = store.sweep_run(folder.name)
        artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
        assert "2 trials, 1.5 kB" in check_deletable(store, folder.name)
        delete_sweep(store, folder.name)
        assert not folder.exists()
        assert not artifacts.parent.exists()
        assert not store.trial_runs(run.info.run_id)
        tags = store.client.get_experiment(store.experiment_id).tags
        assert not [key for key in tags if run.info.run_id in key]
        make_sweep(store, folder)

    def test_others_stay(self, store, folder):
        make_sweep(store, folder)
        other = folder.with_name("neighbour-of-deleted")
        make_sweep(store, other)
        delete_sweep(store, folder.name)
        assert row_of(store, other.name).trials == 2

    def test_a_running_sweep_is_refused(self, store, folder):
        make_sweep(store, folder, ended=None)
        with pytest.raises(UserError, match="is running"):
            delete_sweep(store, folder.name)
        assert folder.exists()

    def test_an_unknown_name_is_refused_with_the_nearest(self, store, folder):
        make_sweep(store, folder)
        with pytest.raises(UserError, match=f"Did you mean '{folder.name}'"):
            delete_sweep(store, folder.name + "x")

    def test_a_storage_that_is_not_the_sweeps_is_left_alone(self, store, folder, tmp_path):
        make_sweep(store, folder)
        (tmp_path / "precious").mkdir()
        foreign = tmp_path / "home" / folder.name
        foreign.mkdir(parents=True)
        (foreign / "thesis.tex").touch()
        link = tmp_path / "link" / folder.name
        link.parent.mkdir()
        link.symlink_to(folder)
        for place in (tmp_path / "precious", foreign, link):
            tag_parent(store, folder.name, sweep_storage=str(place))
            with pytest.raises(UserError, match="does not hold"):
                delete_sweep(store, folder.name)
        assert (foreign / "thesis.tex").exists()
        assert folder.exists()
        assert row_of(store, folder.name).trials == 2

    def test_a_storage_that_is_gone_already(self, store, folder):
        make_sweep(store, folder)
        tag_parent(store, folder.name, sweep_storage=str(folder.parent / "x" / folder.name))
        delete_sweep(store, folder.name)
        assert folder.exists()

    def test_a_remote_storage(self, store, folder):
        make_sweep(store, folder)
        tag_parent(store, folder.name, sweep_storage=f"file://{folder}")
        assert row_of(store, folder.name).disk_bytes is None
        delete_sweep(store, folder.name)
        assert not folder.exists()

    def test_a_registered_model_keeps_its_sweep(self, store, folder):
        tracker = make_sweep(store, folder)
        run_id = tracker.run_id("1")
        store.client.create_registered_model("unetexp")
        store.client.create_model_version("unetexp", f"runs:/{run_id}/checkpoint", run_id)
        with pytest.raises(UserError, match="version 1 of the registered model 'unetexp'"):
            delete_sweep(store, folder.name)
        assert folder.exists()
        store.client.delete_registered_model("unetexp")
        delete_sweep(store, folder.name)

    def test_another_machines_files_are_spoken_of(self, store, folder):
        make_sweep(store, folder)
        assert socket.gethostname() not in check_deletable(store, folder.name)
        tag_parent(store, folder.name, sweep_host="elsewhere")
        assert "only files of elsewhere that are here" in check_deletable(store, folder.name)
