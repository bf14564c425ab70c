"""A project that was copied or moved: nothing reaches back, and --relocate makes it whole."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.tracking._tracking_service import utils as mlflow_utils
from typer.testing import CliRunner

from sweeps.cli import compare, promote, run
from sweeps.state.moved_paths import Moves
from sweeps.tracking.own_files import other_project
from sweeps.tracking.relocation import plan_relocation
from sweeps.tracking.store import PROJECT_ROOT, open_store
from tests.support.promotable import Place
from tests.support.tracking_stores import write_sweep
from tests.support.trials_here import trials_here
from unetexp.cli.main import app as unetexp
from unetexp.errors import UserError
from unetexp.tracking.moved import FOLDER

NAME = "it's a project"
TRIALS = [({"loss.kind": "focal"}, [0.5], "completed")]


def call(app, *arguments, uri, code=0, answer=None):
    mlflow_utils._artifact_repos_cache.clear()  # by run id, as if no two stores had the same
    done = CliRunner().invoke(
        app, [*map(str, arguments), "--tracking-uri", uri], input=answer, catch_exceptions=True
    )
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


def typed(command):
    return subprocess.run(
        command,
        shell=isinstance(command, str),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def content_of(root):
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def uri_of(root):
    return f"sqlite:///{root}/mlflow.db"


def texts(root):
    """All texts of the database."""
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        return [line for line in database.iterdump() if not line.startswith("CREATE")]


def without_folder_tag(root):
    """The database as older versions left it."""
    with closing(sqlite3.connect(root / "mlflow.db")) as database, database:
        database.execute("DELETE FROM experiment_tags WHERE key = ?", (FOLDER,))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A sweep `real` of two trials, promoted, and a sweep `outside` with a storage elsewhere."""
    root = tmp_path_factory.mktemp("original") / NAME
    root.mkdir()
    place = Place(root)
    flags = ["--data", place.data_root, "--storage", root / "runs", "--trials", 2, "--gpus", 0]
    quick = ["--skip-preflight", "--name", "real"]
    with trials_here():
        call(run.app, root / "small.yaml", *flags, *quick, uri=place.uri)
    call(promote.app, "real", "--gpus", 0, uri=place.uri)
    write_sweep(place.store, "outside", TRIALS, storage=f"{root}2/outside", epochs=1)
    (root / "predictions").mkdir()
    return root


@pytest.fixture
def copied(original, tmp_path):
    """A copy; the original is kept under another name, so that nothing can reach it."""
    before, hidden = content_of(original), original.with_name("hidden")
    shutil.copytree(original, tmp_path / "copy" / NAME)
    original.rename(hidden)
    yield tmp_path / "copy" / NAME
    assert not original.exists(), "written into the old place"
    hidden.rename(original)
    assert content_of(original) == before


@pytest.mark.parametrize("old", [False, True], ids=["recorded", "older database"])
def test_a_copy_is_refused_with_the_command_or_warns(original, tmp_path, old):
    before, root = content_of(original), tmp_path / "copy"
    shutil.copytree(original, root)
    if old:
        without_folder_tag(root)
    kept, uri = content_of(root / "mlartifacts"), uri_of(root)
    champion, image = "models:/unetexp@champion", root / "data" / "test" / "images"
    refused = [
        (promote.app, "real"),
        (promote.app, "--rollback"),
        (run.app, "--resume", "real", "--trials", 3),
        (run.app, "--resume", "real", "--truncate-ledger"),
        (run.app, "--delete", "real", "--yes"),
        (run.app, "--dry-run"),
        (compare.app, "real", "--report"),
        (compare.app, "real", "--report", tmp_path / "x.html"),
        (unetexp, "predict", champion, image, "--out", tmp_path / "out"),
        (unetexp, "reproduce", "0" * 32),
    ]
    for app, *arguments in refused:
        said = call(app, *arguments, uri=uri, code=2)
        command = said.strip().rpartition("): ")[2]
        assert shlex.split(command)[2:] == ["--relocate", "--tracking-uri", uri], said
        assert str(original) in said
    for app, *arguments in [(compare.app, "real"), (run.app, "--list")]:
        assert "--relocate" in call(app, *arguments, uri=uri).partition("warning: ")[2]
    assert content_of(original) == before
    assert content_of(root / "mlartifacts") == kept
    assert not (tmp_path / "x.html").exists()


@pytest.mark.slow
def test_relocated_everything_works_in_the_copy(original, copied, monkeypatch):
    uri, database = uri_of(copied), (copied / "mlflow.db").read_bytes()
    refused = call(run.app, "--relocate", uri=uri, answer="n\n")
    assert str(original) in refused and (copied / "mlflow.db").read_bytes() == database

    call(run.app, "--relocate", "--yes", uri=uri)

    (kept,) = copied.glob("mlflow.db.before-relocate-*")
    old_forms = (f"'{original}/".replace("'s", "''s"), f"'{original.as_uri()}")
    assert not [line for line in texts(copied) if any(old in line for old in old_forms)]
    assert f"{original}2/outside" == open_store(uri).sweep_run("outside").data.tags["sweep.storage"]
    with closing(sqlite3.connect(kept)) as old:
        locations = old.execute("SELECT artifact_location FROM experiments").fetchall()
        assert (f"{original.as_uri()}/mlartifacts",) in locations
    assert "All addresses are correct" in call(run.app, "--relocate", uri=uri)

    report = call(compare.app, "real", "--report", uri=uri)
    assert f"report of real: {copied}/runs/real/report.html" in report
    image = copied / "data" / "test" / "images"
    champion = "models:/unetexp@champion"
    call(unetexp, "predict", champion, image, "--out", copied / "predictions", uri=uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    model = mlflow.pyfunc.load_model(champion)
    assert model.predict(np.zeros((32, 32, 3), np.uint8)).shape == (32, 32)
    more = typed(
        f"{shlex.quote(sys.executable)} {PROJECT_ROOT}/sweeps/run.py --resume real --trials 3 "
        f"--tracking-uri {shlex.quote(uri)}"
    )
    assert more.returncode == 0, more.stdout + more.stderr
    assert "going on without" not in more.stdout and "does not take" not in more.stdout
    call(promote.app, "real", "--gpus", 0, "--force", uri=uri)
    call(promote.app, "--rollback", uri=uri)
    run_id = open_store(uri).trial_runs(open_store(uri).sweep_run("real").info.run_id)[0]
    call(unetexp, "reproduce", run_id.info.run_id, "--out", copied / "again", uri=uri)
    call(run.app, "--delete", "outside", "--yes", uri=uri)


@pytest.mark.parametrize("in_between", [True, False], ids=["each time", "at the end"])
def test_two_moves_in_a_row(original, copied, tmp_path, in_between):
    if in_between:
        call(run.app, "--relocate", "--yes", uri=uri_of(copied))
    else:
        without_folder_tag(copied)
    last = tmp_path / NAME / "deeper"  # a folder of the same name on the way
    last.parent.mkdir()
    copied.rename(last)
    assert "--relocate" in call(promote.app, "real", uri=uri_of(last), code=2)
    call(run.app, "--relocate", "--yes", uri=uri_of(last))
    store = open_store(uri_of(last))
    sweep = store.sweep_run("real")
    assert sweep.data.tags["sweep.storage"] == f"{last}/runs/real"
    assert sweep.info.artifact_uri.startswith(f"{last.as_uri()}/mlartifacts/")
    champion = store.client.get_model_version_by_alias("unetexp", "champion")
    assert champion.source.startswith(last.as_uri())
    call(compare.app, "real", "--report", uri=uri_of(last))
    last.rename(copied)


def test_a_database_without_its_artifacts_is_not_relocated(original, tmp_path):
    shutil.copy(original / "mlflow.db", tmp_path)
    said = call(run.app, "--relocate", "--yes", uri=uri_of(tmp_path), code=2)
    assert f"{original}/mlartifacts" in said and f"{tmp_path}/mlartifacts" in said


def test_a_failure_leaves_the_database_as_it_was(original, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(original, root)
    (root / "runs" / "real" / "sweep.json").write_text("{")
    before = texts(root)
    said = call(run.app, "--relocate", "--yes", uri=uri_of(root), code=2)
    assert "was not changed" in said and texts(root) == before
    assert not list(root.glob("*before-relocate*"))


def test_through_a_link_it_is_the_same_place(original, tmp_path):
    (tmp_path / "link").symlink_to(original)
    assert "warning" not in call(compare.app, "real", uri=uri_of(tmp_path / "link"))


def test_a_server_is_told_what_to_do():
    with pytest.raises(UserError, match="is a server"):
        plan_relocation("http://127.0.0.1:9")


class TestAddresses:
    def test_only_what_lies_in_the_old_folder(self):
        moves = Moves([(Path("/a/my proj"), Path("/b/it's"))])
        assert moves.text("/a/my proj/runs") == "/b/it's/runs"
        assert moves.text("file:///a/my%20proj/x") == "file:///b/it%27s/x"
        assert moves.text("file:///a/my proj") == "file:///b/it's"
        for other in ("/a/my proj2/x", "see /a/my proj/x", "models:/a/my proj", ""):
            assert moves.text(other) == other

    def test_into_a_folder_of_the_old_one_and_out_of_it(self):
        into = Moves([(Path("/a"), Path("/a/b"))])
        assert into.text(into.text("/a/x")) == "/a/b/x"
        assert Moves([(Path("/a/b"), Path("/a"))]).text("/a/b/x") == "/a/x"


class TestOwnFiles:
    @pytest.fixture
    def checkout(self, tmp_path):
        (tmp_path / "other" / "sweeps").mkdir(parents=True)
        (tmp_path / "other" / "unetexp").mkdir()
        (tmp_path / "other" / "sweeps" / "run.py").touch()
        return tmp_path / "other"

    def test_whose_a_place_is(self, checkout, tmp_path):
        assert other_project(PROJECT_ROOT / "sweep_runs" / "x", None) is None
        assert other_project(tmp_path / "storage" / "x", None) is None
        assert other_project(checkout / "sweep_runs" / "x", None) == checkout
        assert other_project(tmp_path / "gone" / "sweep_runs" / "x", None) == tmp_path / "gone"
        assert other_project(tmp_path / "gone" / "x", str(tmp_path / "gone")) == tmp_path / "gone"
        assert other_project(tmp_path / "storage" / "x", str(tmp_path / "gone")) is None

    def test_its_sweeps_are_not_written_to(self, checkout, tmp_path):
        uri = uri_of(tmp_path)
        tracker = write_sweep(open_store(uri), "theirs", TRIALS, storage=f"{checkout}/runs/theirs")
        run_id = tracker.store.sweep_run("theirs").info.run_id
        tracker.store.client.set_tag(run_id, "sweep.project", str(checkout))
        for app, *arguments in [
            (run.app, "--resume", "theirs"),
            (run.app, "--delete", "theirs", "--yes"),
            (compare.app, "theirs", "--report"),
        ]:
            said = call(app, *arguments, uri=uri, code=2)
            assert f"Run the command there: {checkout}" in said
        assert not (checkout / "runs").exists()
        call(compare.app, "theirs", uri=uri)


@pytest.mark.slow
def test_a_whole_project_that_was_copied(tmp_path):
    one, two = tmp_path / "p", tmp_path / "p two"
    skip = shutil.ignore_patterns("__pycache__")
    for package in ("sweeps", "unetexp"):
        shutil.copytree(PROJECT_ROOT / package, one / package, ignore=skip)
    tracker = write_sweep(open_store(uri_of(one)), "x", TRIALS, storage=f"{one}/sweep_runs/x")
    run_id = tracker.store.sweep_run("x").info.run_id
    tracker.store.client.set_tag(run_id, "sweep.project", str(one))
    before = content_of(one)
    shutil.copytree(one, two)
    report = f"cd / && python {shlex.quote(str(two))}/sweeps/compare.py x --report"
    report = report.replace("python", shlex.quote(sys.executable), 1)
    refused = typed(report)
    assert refused.returncode == 2, refused.stdout + refused.stderr
    command = refused.stderr.strip().rpartition("): ")[2]
    assert "--tracking-uri" not in command
    relocated = typed(f"cd / && {command} --yes")
    assert relocated.returncode == 0, relocated.stdout + relocated.stderr
    assert typed(report).returncode == 0
    assert (two / "sweep_runs" / "x" / "report.html").exists()
    now = content_of(one)
    assert {path: now.get(path) for path in before} == before
    assert all("__pycache__" in path for path in now.keys() - before.keys())
