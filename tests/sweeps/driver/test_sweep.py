"""A real sweep from the command line: two pretend GPUs, real Ray, real MLflow, real files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import unetexp
from sweeps.cli.compare import app as compare
from sweeps.cli.promote import app as promote
from sweeps.promotion.registry import champion
from sweeps.state.ledger import Ledger
from sweeps.state.manifest import read_manifest
from sweeps.tracking.store import open_store
from tests.support.sweep_command import Place, run, run_here
from tests.support.trials_here import trials_here

LONG = "a-folder-of-a-batch-job-" * 4


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("sweeps"))


@pytest.fixture(scope="module")
def sweep(place):
    """A finished sweep named `first` on two pretend GPUs, from a batch job's temporary folder."""
    (place.root / LONG).mkdir()
    folders = set(Path("/tmp").glob("ray-*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_TMPDIR", raising=False)
        patch.setenv("TMPDIR", str(place.root / LONG))
        done = run(place.recipe, *place.flags, "--simulate-gpus", 2, "--name", "first")
    assert done.returncode == 0, done.stdout + done.stderr
    done.left = set(Path("/tmp").glob("ray-*")) - folders
    return done


def test_every_trial_is_a_child_run_that_ended_as_it_did(sweep, place):
    (parent,), children = place.runs("first")
    assert parent.info.run_name == "first"
    assert parent.info.status == "FINISHED"
    assert len(children) == 5
    for child in children:
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.tags["stop_reason"] in ("completed", "asha")
        assert child.info.status == "FINISHED"


def test_a_temporary_folder_with_a_long_path_does_not_disturb(sweep, place):
    assert "open to the network" not in sweep.stdout + sweep.stderr
    noted = (place.storage / "first" / "driver.log").read_text()
    assert "ports of Ray" in noted
    assert str(place.root / LONG / "ray") in noted
    assert not sweep.left


def test_a_child_has_one_point_an_epoch_and_its_best(sweep, place):
    _, children = place.runs("first")
    for child in children:
        points = place.client.get_metric_history(child.info.run_id, "val/miou")
        steps = [point.step for point in points]
        assert steps == list(range(1, len(steps) + 1))
        if child.data.tags["stop_reason"] == "completed":
            assert len(steps) == 3
        best = max(points, key=lambda point: point.value)
        assert child.data.metrics["best/val/miou"] == best.value
        assert child.data.metrics["best/epoch"] == best.step
        assert {"train/loss", "val/loss", "val/dice", "val/pixel_accuracy"} <= set(
            child.data.metrics
        )


def test_a_child_says_what_its_model_costs_to_train_and_to_use(sweep, place):
    _, children = place.runs("first")
    for child in children:
        figures = child.data.metrics
        trained = figures["time/train_s"] + figures["time/val_s"]
        assert figures["cost/device_s"] > trained > 0
        assert figures["time/latency_ms"] > 0
        assert figures["model/parameters"] > 11e6  # a ResNet-18 and a decoder


def test_parameters_are_dotted_paths(sweep, place):
    _, children = place.runs("first")
    for child in children:
        params = child.data.params
        assert params["encoder.freeze"] in ("none", "stem")
        assert 1e-3 <= float(params["optimizer.lr"]) <= 1e-2
        assert ("loss.gamma" in params) == (params["loss.kind"] == "focal")


def test_a_child_has_its_pictures_and_the_best_three_their_weights(sweep, place, tmp_path):
    _, children = place.runs("first")
    measured = read_manifest(place.storage / "first").measured  # in the preflight, if it had time
    holders = []
    for child in children:
        files = {item.path for item in place.client.list_artifacts(child.info.run_id)}
        assert {"config.yaml", "overlay.png", "confusion_matrix.png", "per_class.csv"} <= files
        assert "worst.png" in files
        assert child.data.tags["machine.device"] == "cpu"
        assert child.data.tags["machine.chosen_by"] == ("measurement" if measured else "rule")
        if "checkpoint" in files:
            holders.append(child)
    assert len(holders) == 3
    folder = place.client.download_artifacts(holders[0].info.run_id, "checkpoint", str(tmp_path))
    assert unetexp.load(folder).training is False


def test_overlays_of_the_same_epochs_can_be_compared(sweep, place):
    _, children = place.runs("first")
    for child in children:
        pictures = place.client.list_artifacts(child.info.run_id, "images")
        found = [re.match(r"images/(\w+).overlay.step.(\d+)", item.path) for item in pictures]
        series = {(match[1], int(match[2])) for match in found}
        epochs = len(place.client.get_metric_history(child.info.run_id, "val/miou"))
        assert series == {("best", 0)} | {("val", epoch) for epoch in range(1, epochs + 1)}


def test_descriptions_say_what_was_varied_and_how_it_ended(sweep, place):
    (parent,), children = place.runs("first")
    note = parent.data.tags["mlflow.note.content"]
    for message in (
        "5 trials of at most 3 epochs",
        "`encoder.freeze`: one of none, stem",
        "4 train, 3 val, 2 test; 3 classes: 0, 1, 2.",
        "`python sweeps/compare.py first`",
        "`python sweeps/promote.py first`",
        "Ended: completed. Trials: ",
        f"**{parent.data.metrics['best/val/miou']:.4f}**",
    ):
        assert message in note
    for child in children:
        note = child.data.tags["mlflow.note.content"]
        assert f"loss.kind={child.data.params['loss.kind']}" in note
        assert f"Best val/miou {child.data.metrics['best/val/miou']:.4f}" in note


def test_the_sweep_can_be_compared(sweep, place):
    done = CliRunner().invoke(compare, ["--tracking-uri", place.uri, "--format", "json"])
    rows = json.loads(done.stdout)
    best = [row["best/val/miou"] for row in rows if row["full_budget"]]
    assert best == sorted(best, reverse=True)
    assert len(rows) == 5
    assert {"loss.kind", "optimizer.lr", "val/iou/2", "cost/device_s"} <= rows[0].keys()
    assert f"compare.py first --tracking-uri {place.uri}" in sweep.stdout


def test_the_parent_records_what_was_run_and_on_what(sweep, place):
    (parent,), _ = place.runs("first")
    tags = parent.data.tags
    assert tags["data.fingerprint"]
    assert tags["sweep.simulated"] == "True"
    assert {"git.commit", "hardware.cpu", "version.torch", "encoder.weights"} <= set(tags)
    assert parent.data.params["seed"] == "0"
    files = {item.path for item in place.client.list_artifacts(parent.info.run_id)}
    assert {"recipe.yaml", "data.json"} <= files


def test_two_trials_ran_at_once(sweep, place):
    running, most = set(), 0
    for event in Ledger(place.storage / "first" / "ledger.jsonl").of("start", "end"):
        (running.add if event["event"] == "start" else running.discard)(event["trial"])
        most = max(most, len(running))
    assert most == 2


def test_the_terminal_says_what_happened_and_nothing_else(sweep):
    out = sweep.stdout
    assert "simulated" in out
    assert re.search(r"trial 0000 epoch 1/3: val/miou 0\.\d{4}", out)
    assert "Sweep first is done" in out
    assert "make ui" in out
    noise = ("Ray", "WARNING", "INFO", "Tune", "Configuration for experiment", "Traceback")
    assert not [word for word in noise if word in out.replace("Ray Tune", "") + sweep.stderr]


def test_resume_state_is_gone_and_the_storage_is_private(sweep, place):
    folder = place.storage / "first"
    assert not list(folder.rglob("epoch-*"))
    assert folder.stat().st_mode & 0o077 == 0


def test_a_name_that_exists_is_refused(sweep, place):
    said = run_here(place.recipe, *place.flags, "--name", "first", code=2)
    assert "'first'" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_one_worker_and_one_seed_propose_the_same_trials(place):
    proposals = []
    for name in ("again-1", "again-2"):
        run_here(
            place.recipe, *place.flags, "--gpus", 0, "--trials", 2, "--epochs", 1, "--seed", 7,
            "--name", name, "--cpus-per-trial", 2, "--skip-preflight",
        )  # fmt: skip
        _, children = place.runs(name)
        figures = [
            (child.data.params, child.data.metrics["val/miou"], child.data.metrics["train/loss"])
            for child in children
        ]
        proposals.append(figures)
    assert proposals[0] == proposals[1]


def test_the_best_trial_becomes_champion(sweep, place):
    arguments = ["first", "--gpus", "0", "--tracking-uri", place.uri]
    done = CliRunner().invoke(promote, arguments)
    assert done.exit_code == 0, done.output
    _, children = place.runs("first")
    full = [child for child in children if child.data.tags["stop_reason"] == "completed"]
    best = max(full, key=lambda child: child.data.metrics["best/val/miou"])
    found = champion(open_store(place.uri))
    assert (found.version, found.run_id) == ("1", best.info.run_id)
    assert "test/miou" in place.client.get_run(found.run_id).data.metrics


@pytest.fixture(scope="module")
def broken(place):
    """A sweep whose loss overflows in every trial."""
    overflow = ["--set", "loss.kind=cross_entropy", "--set", "loss.class_weights=[1e38,1e38,1e38]"]
    with trials_here():
        run_here(
            place.recipe, *place.flags, "--gpus", 0, "--trials", 2, "--epochs", 1,
            "--name", "broken", "--skip-preflight", *overflow, code=1,
        )  # fmt: skip
    return place.runs("broken")[1]


def test_a_sweep_whose_trials_all_fail_exits_1_and_keeps_the_reason(broken):
    assert [child.data.tags["stop_reason"] for child in broken] == ["nan", "nan"]
    assert {child.info.status for child in broken} == {"FAILED"}


@pytest.mark.slow
def test_a_time_budget_ends_the_sweep_in_good_order(place):
    done = run(
        place.recipe, *place.flags, "--gpus", 0, "--trials", 50, "--epochs", 200, "--name", "timed",
        "--time-budget", "15s", "--set", "asha.enabled=false", "--skip-preflight",
    )  # fmt: skip
    assert "time budget spent" in done.stdout
    (parent,), children = place.runs("timed")
    assert parent.info.status == "FINISHED"
    assert {child.info.status for child in children} <= {"FINISHED", "KILLED"}


def test_list_and_delete(sweep, broken, place):
    listed = run_here("--list", "--tracking-uri", place.uri)
    assert "first" in listed and "broken" in listed
    run_here("--delete", "broken", "--yes", "--tracking-uri", place.uri)
    left = run_here("--list", "--tracking-uri", place.uri)
    assert "first" in left and "broken" not in left
    assert not (place.storage / "broken").exists()
