"""A real sweep from the command line: two pretend GPUs, real Ray, real MLflow, real files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

import unetexp
from sweeps.cli.compare import app as compare
from sweeps.cli.run import app
from sweeps.state.ledger import Ledger
from tests.support.data_folders import write_folder_dataset

ROOT = Path(__file__).parents[3]
RECIPE = """
base:
  encoder: {name: resnet18, weights: none}
  augment: {crop_px: 32}
  batch_size: 2
  epochs: 3
space:
  encoder.freeze: {kind: choice, values: [none, stem]}
  decoder.upsampling: {kind: choice, values: [bilinear, nearest]}
  loss.kind: {kind: choice, values: [cross_entropy, focal]}
  loss.gamma: {kind: uniform, low: 1, high: 3, when: {loss.kind: focal}}
  optimizer.lr: {kind: loguniform, low: 1.0e-3, high: 1.0e-2}
budget: {trials: 5}
asha: {grace_epochs: 1}
"""


def run(*arguments, cwd=ROOT, timeout=240):
    return subprocess.run(
        [sys.executable, str(ROOT / "sweeps" / "run.py"), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class Place:
    """Where a test's sweeps live."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = f"sqlite:///{root / 'mlflow.db'}"
        self.storage = root / "runs"
        self.recipe = root / "small.yaml"
        self.recipe.write_text(RECIPE)
        self.data = root / "data"
        write_folder_dataset(self.data, splits={"train": 4, "val": 3}, size=(40, 48), classes=3)

    @property
    def flags(self):
        return ["--data", self.data, "--tracking-uri", self.uri, "--storage", self.storage]

    @property
    def client(self):
        return MlflowClient(tracking_uri=self.uri)

    def runs(self, name):
        experiment = self.client.get_experiment_by_name("unetexp").experiment_id
        found = self.client.search_runs([experiment], f"tags.`sweep.name` = '{name}'")
        parents = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
        children = [run for run in found if "mlflow.parentRunId" in run.data.tags]
        return parents, sorted(children, key=lambda run: run.data.tags["tune.trial_id"])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("sweeps"))


@pytest.fixture(scope="module")
def sweep(place):
    """A finished sweep named `first` on two pretend GPUs."""
    done = run(place.recipe, *place.flags, "--simulate-gpus", 2, "--name", "first")
    assert done.returncode == 0, done.stdout + done.stderr
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
    holders = []
    for child in children:
        files = {item.path for item in place.client.list_artifacts(child.info.run_id)}
        assert {"config.yaml", "overlay.png", "confusion_matrix.png", "per_class.csv"} <= files
        assert "worst.png" in files
        assert child.data.tags["machine.device"] == "cpu"
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
    for words in (
        "5 trials of at most 3 epochs",
        "`encoder.freeze`: one of none, stem",
        "4 train, 3 val; 3 classes: 0, 1, 2.",
        "`python sweeps/compare.py first`",
        "`python sweeps/promote.py first`",
        "Ended: completed. Trials: ",
        f"**{parent.data.metrics['best/val/miou']:.4f}**",
    ):
        assert words in note
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
    again = run(place.recipe, *place.flags, "--name", "first")
    assert again.returncode == 2
    assert "first" in again.stderr
    assert "Traceback" not in again.stderr


def test_one_worker_and_one_seed_propose_the_same_trials(place):
    proposals = []
    for name in ("again-1", "again-2"):
        done = run(
            place.recipe, *place.flags, "--gpus", 0, "--trials", 2, "--epochs", 1, "--seed", 7,
            "--name", name, "--cpus-per-trial", 2, "--skip-preflight",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        _, children = place.runs(name)
        figures = [
            (child.data.params, child.data.metrics["val/miou"], child.data.metrics["train/loss"])
            for child in children
        ]
        proposals.append(figures)
    assert proposals[0] == proposals[1]


def test_a_sweep_whose_trials_all_fail_exits_1_and_keeps_the_reason(place):
    overflow = ["--set", "loss.kind=cross_entropy", "--set", "loss.class_weights=[1e38,1e38,1e38]"]
    done = run(
        place.recipe, *place.flags, "--gpus", 0, "--trials", 2, "--epochs", 1, "--name", "broken",
        "--skip-preflight", *overflow,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    _, children = place.runs("broken")
    assert [child.data.tags["stop_reason"] for child in children] == ["nan", "nan"]
    assert {child.info.status for child in children} == {"FAILED"}


def test_a_time_budget_ends_the_sweep_in_good_order(place):
    done = run(
        place.recipe, *place.flags, "--gpus", 0, "--trials", 50, "--epochs", 200, "--name", "timed",
        "--time-budget", "15s", "--set", "asha.enabled=false", "--skip-preflight",
    )  # fmt: skip
    assert "time is up" in done.stdout
    (parent,), children = place.runs("timed")
    assert parent.info.status == "FINISHED"
    assert {child.info.status for child in children} <= {"FINISHED", "KILLED"}


def test_list_and_delete(sweep, place):
    def ask(*arguments):
        done = CliRunner().invoke(app, [*arguments, "--tracking-uri", place.uri])
        assert done.exit_code == 0, done.output
        return done.stdout

    assert "first" in ask("--list")
    ask("--delete", "broken", "--yes")
    assert "broken" not in ask("--list")
    assert not (place.storage / "broken").exists()
