"""The driver's record in a real MLflow store, read back with a client of its own."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import parse_qs, unquote

import pytest
from mlflow import MlflowClient
from PIL import Image

from sweeps.config.checks import check_name
from sweeps.tracking.mlflow_ui import trials_url
from sweeps.tracking.store import check_tracking, open_existing, open_store
from sweeps.tracking.tracker import Tracker, open_tracking
from unetexp.errors import UserError
from unetexp.tracking.server import public_uri, without_secrets


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    place = tmp_path_factory.mktemp("tracking with spaces é")
    return open_store(f"sqlite:///{place}/deep/mlflow.db")


@pytest.fixture
def sweep(store, request):
    tracker = Tracker(store)
    name = request.node.name.replace("[", "-").rstrip("]")
    tracker.start_sweep(name, storage=f"/nowhere/{name}", note="A sweep.")
    tracker.name = name
    return tracker


def read(tracker, trial):
    return tracker.store.client.get_run(tracker.run_id(trial))


def points(tracker, trial, metric):
    history = tracker.store.client.get_metric_history(tracker.run_id(trial), metric)
    return [(point.step, point.value) for point in history]


class TestRuns:
    def test_parent_holds_what_the_sweep_was(self, store, tmp_path):
        (tmp_path / "x.txt").write_text("file")
        run_id = Tracker(store).start_sweep(
            "whole",
            storage="s3://bucket/whole",
            tags={"git.dirty": True},
            params={"recipe": "quickstart", "seed": 0},
            artifacts={"recipe.yaml": "epochs: 3", "data/y.txt": tmp_path / "x.txt"},
            note="Words.",
        )
        run = store.client.get_run(run_id)
        assert run.info.run_name == "whole"
        assert run.info.status == "RUNNING"
        assert run.data.params == {"recipe": "quickstart", "seed": "0"}
        expected = {
            "sweep.name": "whole",
            "sweep.storage": "s3://bucket/whole",
            "git.dirty": "True",
            "mlflow.note.content": "Words.",
        }
        assert expected.items() <= run.data.tags.items()
        assert [a.path for a in store.client.list_artifacts(run_id)] == ["data", "recipe.yaml"]
        assert [a.path for a in store.client.list_artifacts(run_id, "data")] == ["data/y.txt"]

    def test_trial_is_a_child_with_its_names(self, sweep):
        sweep.start_trial("0001", "first", {"encoder.freeze": "all", "loss.gamma": None})
        run = read(sweep, "0001")
        assert run.data.params == {"encoder.freeze": "all", "loss.gamma": "None"}
        assert run.data.tags["tune.trial_id"] == "0001"
        assert run.data.tags["sweep.name"] == sweep.name
        parent = sweep.store.client.get_run(run.data.tags["mlflow.parentRunId"])
        assert parent.info.run_name == sweep.name

    @pytest.mark.parametrize(
        ("reason", "status"),
        [
            ("completed", "FINISHED"),
            ("asha", "FINISHED"),
            ("interrupted", "KILLED"),
            ("nan", "FAILED"),
            ("oom", "FAILED"),
            ("error", "FAILED"),
            ("crash", "FAILED"),
            ("preempted", "FAILED"),
            ("node_lost", "FAILED"),
        ],
    )
    def test_status_follows_the_stop_reason(self, sweep, reason, status):
        sweep.start_trial("1", "one", {}, note="Settings.")
        sweep.log_epoch("1", 1, {"val/miou": 0.25})
        sweep.end_trial("1", reason)
        run = read(sweep, "1")
        assert (run.info.status, run.data.tags["stop_reason"]) == (status, reason)
        assert run.data.tags["mlflow.note.content"].startswith("Settings.\n\n")
        assert "0.2500" in run.data.tags["mlflow.note.content"]

    def test_the_end_of_a_sweep_leaves_nothing_running(self, sweep):
        for trial in "12":
            sweep.start_trial(trial, trial, {})
        sweep.end_trial("1", "completed")
        sweep.end_sweep("interrupted", "Stopped by hand.")
        assert read(sweep, "1").info.status == "FINISHED"
        assert read(sweep, "2").data.tags["stop_reason"] == "interrupted"
        parent = sweep.store.sweep_run(sweep.name)
        assert parent.info.status == "KILLED"
        assert parent.data.tags["mlflow.note.content"] == "Stopped by hand.\n\nA sweep."

    def test_gpus_that_are_set_aside_are_named_in_the_parent(self, sweep):
        for gpu in ("GPU 0 of a", "GPU 1 of b", "GPU 0 of a"):
            sweep.tag_gpu_set_aside(gpu)
        tags = sweep.store.sweep_run(sweep.name).data.tags
        assert tags["sweep.gpus_set_aside"] == "GPU 0 of a, GPU 1 of b"

    def test_a_traceback_becomes_an_artifact(self, sweep):
        sweep.start_trial("1", "one", {})
        sweep.end_trial("1", "error", "Traceback\nValueError: x")
        text = Path(sweep.store.client.download_artifacts(sweep.run_id("1"), "error.txt"))
        assert text.read_text(encoding="utf-8") == "Traceback\nValueError: x"


class TestPoints:
    def test_one_point_an_epoch_and_the_best_as_its_own_metric(self, sweep):
        sweep.start_trial("1", "one", {})
        for epoch, score in enumerate([0.2, 0.5, 0.4, 0.5], start=1):
            sweep.log_epoch("1", epoch, {"val/miou": score, "train/loss": 1 / epoch})
        assert points(sweep, "1", "val/miou") == [(1, 0.2), (2, 0.5), (3, 0.4), (4, 0.5)]
        assert points(sweep, "1", "best/val/miou") == [(1, 0.2), (2, 0.5), (3, 0.5), (4, 0.5)]
        assert read(sweep, "1").data.metrics["best/epoch"] == 2

    def test_the_parent_shows_the_best_of_all_trials(self, sweep):
        for trial, score in {"1": 0.3, "2": 0.7, "3": 0.1}.items():
            sweep.start_trial(trial, trial, {})
            sweep.log_epoch(trial, 1, {"val/miou": score})
        assert sweep.store.sweep_run(sweep.name).data.metrics == {"best/val/miou": 0.7}

    def test_figures_that_are_not_finite_are_left_out(self, sweep):
        sweep.start_trial("1", "one", {})
        sweep.log_epoch("1", 1, {"val/miou": math.nan, "train/loss": math.inf, "val/dice": 0.5})
        assert read(sweep, "1").data.metrics == {"val/dice": 0.5}

    def test_class_names_mlflow_would_refuse(self, sweep):
        names = ["car (red)", "car [red]", "a/../b", "/", "é", "x" * 300]
        sweep.start_trial("1", "one", {})
        sweep.log_epoch("1", 1, {f"val/iou/{name}": i / 10 for i, name in enumerate(names)})
        assert sorted(read(sweep, "1").data.metrics.values()) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]

    def test_more_figures_and_parameters_than_one_call_takes(self, sweep):
        sweep.start_trial("1", "one", {f"p{i}": "v" * 7000 for i in range(150)})
        sweep.log_epoch("1", 1, {f"val/iou/{i}": 0.5 for i in range(1500)})
        run = read(sweep, "1")
        assert (len(run.data.params), len(run.data.metrics)) == (150, 1500)

    def test_a_repeated_epoch_is_not_written_twice(self, sweep):
        sweep.start_trial("1", "one", {})
        for epoch in (1, 2, 2, 1, 3):
            sweep.log_epoch("1", epoch, {"val/miou": epoch / 10})
        assert points(sweep, "1", "val/miou") == [(1, 0.1), (2, 0.2), (3, 0.3)]

    def test_a_call_that_failed_half_way_is_made_again(self, sweep, monkeypatch):
        """The write arrived, its answer did not: the second try adds no second point."""
        sweep.start_trial("1", "one", {})
        client, once = sweep.store.client, iter([True])
        write = client.log_batch

        def arrives_but_fails(*args, **kwargs):
            write(*args, **kwargs)
            if next(once, False):
                raise ConnectionError("the answer was lost")

        monkeypatch.setattr(client, "log_batch", arrives_but_fails)
        with pytest.raises(ConnectionError):
            sweep.log_epoch("1", 1, {"val/miou": 0.5})
        time.sleep(0.01)
        sweep.log_epoch("1", 1, {"val/miou": 0.5})
        assert points(sweep, "1", "val/miou") == [(1, 0.5)]
        assert points(sweep, "1", "best/val/miou") == [(1, 0.5)]


class TestResume:
    def test_runs_are_opened_again_and_curves_go_on(self, store):
        before = Tracker(store)
        parent = before.start_sweep("resumed", storage="/nowhere/resumed", note="Note.")
        first = before.start_trial("1", "one", {"a": 1})
        for epoch in (1, 2):
            before.log_epoch("1", epoch, {"val/miou": 1 / 2**epoch})
        before.end_sweep("interrupted")

        after = Tracker(store)
        assert after.resume_sweep("resumed", {"sweep.trials": 20}) == parent
        assert after.start_trial("1", "one", {"a": 1}) == first
        run = read(after, "1")
        assert run.info.status == "RUNNING"
        assert "stop_reason" not in run.data.tags
        for epoch in (2, 3):
            after.log_epoch("1", epoch, {"val/miou": 0.3})
        after.end_trial("1", "completed")
        after.end_sweep("completed")
        assert points(after, "1", "val/miou") == [(1, 0.5), (2, 0.25), (3, 0.3)]
        assert read(after, "1").data.metrics["best/epoch"] == 1
        run = store.sweep_run("resumed")
        assert (run.info.status, run.data.tags["sweep.trials"]) == ("FINISHED", "20")
        assert len(store.trial_runs(parent)) == 1

    def test_a_sweep_that_is_not_there(self, store):
        with pytest.raises(UserError, match=r"no sweep named .who's there.*--list"):
            Tracker(store).resume_sweep("who's there")


class TestNames:
    def test_a_taken_name_is_refused_with_the_way_out(self, sweep):
        with pytest.raises(UserError, match=r"exists already.*--name.*--delete"):
            Tracker(sweep.store).start_sweep(sweep.name, storage="/nowhere")
        assert len(sweep.store.sweep_runs(sweep.name)) == 1

    def test_drivers_that_take_a_name_together(self, store):
        outcomes = []

        def start():
            try:
                outcomes.append(Tracker(store).start_sweep("race", storage="/nowhere/race"))
            except UserError:
                outcomes.append("taken")

        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Counter(outcomes)["taken"] == 3
        assert len(store.sweep_runs("race")) == 1

    @pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "it's", "x" * 101, "-x"])
    def test_names_that_are_no_names(self, name):
        with pytest.raises(UserError, match="cannot be used"):
            check_name(name)


class TestPictures:
    def test_a_picture_is_in_its_series_once(self, sweep, tmp_path):
        picture = tmp_path / "overlay.png"
        Image.new("RGBA", (8, 6)).save(picture)
        sweep.start_trial("1", "one", {})
        for _ in range(2):
            sweep.log_image("1", picture, "val/overlay", 3)
        sweep.log_artifacts("1", picture)
        sweep.end_trial("1", "interrupted")
        later = Tracker(sweep.store)
        later.resume_sweep(sweep.name)
        later.start_trial("1", "one", {})
        later.log_image("1", picture, "val/overlay", 3)
        found = sweep.store.client.list_artifacts(sweep.run_id("1"), "images")
        assert sum(entry.path.endswith(".png") for entry in found) == 1

    def test_the_link_names_the_saved_view(self, sweep):
        base, _, rest = sweep.trials_url("http://me:secret@host:5000/").partition("#")
        assert base == "http://host:5000/"
        path, _, query = rest.partition("?")
        fields = {key: value[0] for key, value in parse_qs(query).items()}
        parent = sweep.store.sweep_run(sweep.name).info.run_id
        assert path == f"/experiments/{sweep.store.experiment_id}/runs"
        assert fields == {
            "workflowType": "machine_learning",
            "viewStateShareKey": parent,
        }
        assert "compareRunsMode=CHART" in trials_url(sweep.store, parent, charts=True)


class TestPlaces:
    def test_the_experiment_opens_in_the_training_view(self, store):
        experiment = MlflowClient(store.uri).get_experiment_by_name("unetexp")
        assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
        assert experiment.tags["mlflow.experiment.primaryMetric.name"] == "best/val/miou"
        place = store.uri.removeprefix("sqlite:///").replace("mlflow.db", "mlartifacts")
        assert unquote(experiment.artifact_location) == f"file://{place}"

    def test_a_second_driver_opens_the_same(self, store):
        assert open_tracking(store.uri).store.experiment_id == store.experiment_id

    def test_a_look_makes_nothing(self, tmp_path):
        uri = f"sqlite:///{tmp_path}/new/mlflow.db"
        assert check_tracking(uri) == uri
        assert open_existing(uri) is None
        assert not list(tmp_path.iterdir())

    def test_a_relative_path_is_made_absolute(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert check_tracking("sqlite:///x.db") == f"sqlite:///{tmp_path}/x.db"

    @pytest.mark.parametrize(
        ("uri", "message"),
        [
            ("mlruns", "plain path"),
            ("file:///tmp/mlruns", "not a choice"),
            ("sqllite:///x.db", "Did you mean 'sqlite'"),
            ("sqlite://", "names no file"),
            ("http://", "names no host"),
            ("http://host:99999", "not an address"),
            ("sqlite:////proc/nowhere/mlflow.db", "cannot be used"),
            ("sqlite:////tmp/a%20b/mlflow.db", "%"),
        ],
    )
    def test_addresses_that_cannot_work(self, uri, message):
        with pytest.raises(UserError, match=message):
            open_store(uri)

    def test_places_that_are_no_database(self, tmp_path):
        (tmp_path / "text.db").write_text("no database, but long enough to look at " * 9)
        for name in ("text.db", "text.db/below.db", "."):
            with pytest.raises(UserError, match="cannot be used"):
                open_store(f"sqlite:///{tmp_path}/{name}")

    def test_nobody_listens(self):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(UserError, match="cannot be used") as caught:
            check_tracking(f"http://me:hunter2@127.0.0.1:{port}")
        assert time.monotonic() - started < 5
        assert "hunter2" not in str(caught.value)

    def test_a_server_that_never_answers(self, monkeypatch):
        monkeypatch.setattr("unetexp.tracking.server.ANSWER_S", 1.0)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            started = time.monotonic()
            with pytest.raises(UserError, match="no answer within"):
                check_tracking(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - started < 15


class TestSecrets:
    @pytest.mark.parametrize(
        ("uri", "shown"),
        [
            ("http://me:pass@host:5000/base", "http://host:5000/base"),
            ("http://token@host", "http://host"),
            ("postgresql+psycopg2://u:p@ss/w@h/db?password=x", "postgresql+psycopg2://h/db"),
            ("http://host/x?token=abc#y", "http://host/x"),
            ("sqlite:////home/me@work/x.db", "sqlite:////home/me@work/x.db"),
            ("me:pass@host", "host"),
        ],
    )
    def test_addresses_are_shown_without(self, uri, shown):
        assert public_uri(uri) == shown

    def test_errors_are_shown_without(self):
        uri = "postgresql://me:p%40ss@host/db"
        text = without_secrets(f"cannot connect to {uri} as me:p@ss with 'p@ss'", uri)
        assert "ss@host" not in text
        assert "p@ss" not in text
