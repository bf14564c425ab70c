"""A model's address, in every form, to the folder with its files; in a real MLflow store."""

from __future__ import annotations

import hashlib
import socket
import time

import pytest
from mlflow import MlflowClient

from sweeps.tracking.store import check_tracking, open_store
from sweeps.tracking.tracker import Tracker
from unetexp.errors import CheckpointError, UserError
from unetexp.tracking.locate import checkpoint_of, connect, locate
from unetexp.tracking.uri import PROJECT_ROOT, default_uri

FILES = ("model.safetensors", "config.json")


def write_model(folder, text="model"):
    folder.mkdir(parents=True)
    for name in (*FILES, "overlay.png"):
        (folder / name).write_text(f"{text} {name}")
    return folder


def content(folder):
    return {name: (folder / name).read_text().split()[0] for name in FILES}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A finished sweep of three trials; the second and third kept their weights."""
    root = tmp_path_factory.mktemp("locate")
    tracker = Tracker(open_store(f"sqlite:///{root}/mlflow.db"))
    tracker.start_sweep("finished", storage=str(root / "finished"))
    for number, score in enumerate((0.1, 0.4, 0.3)):
        tracker.start_trial(f"{number}", f"trial-{number}", {})
        tracker.log_epoch(f"{number}", 1, {"val/miou": score})
        tracker.end_trial(f"{number}", "completed")
        if number:
            tracker.log_checkpoint(f"{number}", write_model(root / f"best{number}", f"of-{number}"))
    tracker.end_sweep("completed")
    tracker.uri = tracker.store.uri
    return tracker


@pytest.fixture(scope="module")
def registered(sweep):
    """Two versions of a model `unetexp`: the first `previous`, the second `champion`."""
    client, run_id = sweep.store.client, sweep.run_id("1")
    client.create_registered_model("unetexp")
    for number, alias in (("2", "previous"), ("1", "champion")):
        artifacts = client.get_run(sweep.run_id(number)).info.artifact_uri
        version = client.create_model_version("unetexp", f"{artifacts}/checkpoint", run_id)
        client.set_registered_model_alias("unetexp", alias, version.version)
    return sweep


class TestPaths:
    @pytest.fixture
    def model(self, tmp_path):
        return write_model(tmp_path / "experiment" / "best")

    @pytest.mark.parametrize(
        "form", ["", "/", "/model.safetensors", "/config.json", "/..", "/../best/../best"]
    )
    def test_the_folder_a_file_in_it_and_the_experiment(self, model, form):
        assert locate(f"{model}{form}").resolve() == model

    def test_relative_home_and_file_addresses(self, model, monkeypatch):
        monkeypatch.chdir(model.parent)
        monkeypatch.setenv("HOME", str(model.parent))
        for address in ("best", ".", "~/best", model.as_uri()):
            assert locate(address).resolve() == model

    def test_a_runs_folder_and_a_downloaded_model(self, tmp_path):
        kept = write_model(tmp_path / "run" / "artifacts" / "checkpoint")
        served = write_model(tmp_path / "served" / "artifacts")
        assert locate(str(tmp_path / "run")) == kept
        assert locate(str(tmp_path / "served")) == served

    def test_a_path_that_looks_like_a_run_is_a_path(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert content(locate(str(write_model(tmp_path / ("a" * 32))))) == dict.fromkeys(
            FILES, "model"
        )
        assert locate("a" * 32).name == "a" * 32

    @pytest.mark.parametrize("missing", FILES)
    def test_half_a_model_is_none(self, model, missing):
        (model / missing).unlink()
        rest = next(name for name in FILES if name != missing)
        for place in (model, model.parent, model / rest, model / "overlay.png"):
            with pytest.raises(CheckpointError, match=r"A model is a folder with"):
                locate(str(place))

    def test_a_link_that_leads_nowhere(self, tmp_path):
        (tmp_path / "link").symlink_to(tmp_path / "gone")
        with pytest.raises(CheckpointError, match="are missing"):
            locate(str(tmp_path / "link"))

    @pytest.mark.parametrize(
        "address", ["no/such/folder", "abc", "a" * 31, "g" * 32, "", "s3://b/x"]
    )
    def test_what_is_no_address(self, address, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(CheckpointError, match="models:/NAME@ALIAS"):
            locate(address)


class TestRuns:
    @pytest.mark.parametrize("form", ["{}", "runs:/{}", "runs:/{}/", "runs:/{}/checkpoint"])
    def test_weights_and_config_of_a_run(self, sweep, form):
        place = locate(form.format(sweep.run_id("1")), sweep.uri)
        assert content(place) == dict.fromkeys(FILES, "of-1")
        assert not (place / "overlay.png").exists()

    def test_an_id_in_capitals(self, sweep):
        assert locate(sweep.run_id("1").upper(), sweep.uri) == locate(sweep.run_id("1"), sweep.uri)

    def test_another_run_names_those_that_have_them_best_first(self, sweep):
        with pytest.raises(CheckpointError, match=r"trial trial-0 .* holds no weights") as caught:
            locate(sweep.run_id("0"), sweep.uri)
        message = str(caught.value)
        assert message.index(sweep.run_id("1")) < message.index(sweep.run_id("2"))
        assert "0.4000" in message

    def test_the_sweeps_own_run(self, sweep):
        with pytest.raises(CheckpointError, match="sweep finished") as caught:
            locate(sweep.store.sweep_run("finished").info.run_id, sweep.uri)
        assert sweep.run_id("1") in str(caught.value)

    def test_a_sweep_that_kept_none(self, sweep, tmp_path):
        other = Tracker(sweep.store)
        other.start_sweep("fruitless", storage=str(tmp_path))
        other.start_trial("0", "zero", {})
        with pytest.raises(CheckpointError, match="no other run of its sweep does"):
            locate(other.run_id("0"), sweep.uri)

    def test_no_such_run(self, sweep):
        with pytest.raises(CheckpointError, match="there is no run 'aaaa"):
            locate("a" * 32, sweep.uri)

    @pytest.mark.parametrize("address", ["runs:/../x", "runs:/ID/../../x", "runs:/", "runs:/a/b"])
    def test_a_run_leads_nowhere_else(self, sweep, address):
        address = address.replace("ID", sweep.run_id("1"))
        with pytest.raises(CheckpointError, match=r"incomplete or has extra parts|there is no run"):
            locate(address, sweep.uri)
        with pytest.raises(CheckpointError, match="there is no run"):
            checkpoint_of(sweep.store.client, "../x")


class TestRegistered:
    @pytest.mark.parametrize(
        ("address", "origin"),
        [("@champion", "of-1"), ("/2", "of-1"), ("@previous", "of-2"), ("/1", "of-2")],
    )
    def test_by_alias_and_version(self, registered, address, origin):
        place = locate(f"models:/unetexp{address}", registered.uri)
        assert content(place) == dict.fromkeys(FILES, origin)

    def test_looking_changes_nothing(self, registered):
        place = locate("models:/unetexp@champion", registered.uri)
        assert sorted(path.name for path in place.iterdir()) == sorted(FILES)

    @pytest.mark.parametrize(
        ("address", "words"),
        [
            ("models:/unetexp@champ", "Did you mean 'champion'.*champion, previous"),
            ("models:/unetexp/7", "no such version. Versions: 1, 2"),
            ("models:/unetex@champion", "Did you mean 'unetexp'"),
            ("models:/unetexp", "is incomplete"),
            ("models:/unetexp/../x", "incomplete or has extra parts"),
            ("models:/unet'exp@champion", "no model"),
        ],
    )
    def test_what_there_is_instead(self, registered, address, words):
        with pytest.raises(CheckpointError, match=words):
            locate(address, registered.uri)


class TestStores:
    def test_the_default_is_the_variable_then_the_projects_database(self, sweep, monkeypatch):
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert default_uri() == check_tracking(None) == f"sqlite:///{PROJECT_ROOT}/mlflow.db"
        assert (PROJECT_ROOT / "sweeps").is_dir()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", sweep.uri)
        assert content(locate(sweep.run_id("2"))) == dict.fromkeys(FILES, "of-2")
        assert open_store(None).uri == sweep.uri

    def test_a_database_that_is_not_there_is_not_made(self, tmp_path):
        with pytest.raises(UserError, match="there is no tracking database"):
            connect(f"sqlite:///{tmp_path}/mlflow.db")
        assert not list(tmp_path.iterdir())

    def test_a_file_that_is_no_database(self, tmp_path):
        (tmp_path / "text.db").write_text("no database, but long enough to look at " * 9)
        with pytest.raises(UserError, match="cannot be used"):
            connect(f"sqlite:///{tmp_path}/text.db")

    def test_no_server_listens_and_no_secret_is_shown(self):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(UserError, match="cannot be used") as caught:
            locate("a" * 32, f"http://me:hunter2@127.0.0.1:{port}")
        assert time.monotonic() - started < 5
        assert "hunter2" not in str(caught.value)

    def test_a_path_asks_no_store(self, tmp_path):
        write_model(tmp_path / "model")
        assert locate(str(tmp_path / "model"), "http://127.0.0.1:1") == tmp_path / "model"

    def test_looking_leaves_the_store_as_it_is(self, sweep):
        database = sweep.uri.removeprefix("sqlite:///")
        with open(database, "rb") as file:  # noqa: PTH123
            before = hashlib.file_digest(file, "sha256").digest()
        assert isinstance(connect(sweep.uri), MlflowClient)
        locate(sweep.run_id("1"), sweep.uri)
        with open(database, "rb") as file:  # noqa: PTH123
            assert hashlib.file_digest(file, "sha256").digest() == before
