"""Sweeps that are stopped, killed and resumed, from the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from sweeps.cli.run import app
from sweeps.config.loading import load_recipe
from sweeps.search.bounded_storage import BoundedStorage
from sweeps.search.controller import SweepController
from sweeps.state.ledger import Ledger
from tests.sweeps.driver.test_sweep import ROOT, Place, run
from tests.sweeps.search.test_controller import play, score_of

FEW = [
    *("--gpus", 0, "--max-concurrent", 1, "--trials", 3, "--epochs", 6),
    *("--set", "asha.enabled=false", "--skip-preflight"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def twin(place):
    """The sweep that nobody disturbed."""
    done = run(place.recipe, *place.flags, *FEW, "--name", "twin")
    assert done.returncode == 0, done.stdout + done.stderr
    return figures(place, "twin")


def start(place, *arguments):
    """The command in the background, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "sweeps" / "run.py"), *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(process, words, timeout_s=120):
    """Read the process's output up to the line that has `words`."""
    lines, deadline = [], time.monotonic() + timeout_s
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return
        assert time.monotonic() < deadline, "".join(lines)
    raise AssertionError("ended before: " + "".join(lines))


def figures(place, name):
    """Everything a sweep's runs say that is not time: parameters, curves, endings."""
    found = []
    _, children = place.runs(name)
    for child in children:
        curves = {}
        for metric in child.data.metrics:
            if not metric.startswith(("time/", "system/", "cost/")):
                points = place.client.get_metric_history(child.info.run_id, metric)
                curves[metric] = [(point.step, point.value) for point in points]
        found.append((child.data.params, curves, child.data.tags["stop_reason"]))
    return found


def refusal(*arguments) -> str:
    """What the command says of a mistake."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 2, result.output
    return result.output


@pytest.mark.parametrize("how", ["ctrl-c", "kill -9"])
def test_a_disturbed_sweep_that_is_resumed_equals_its_twin(place, twin, how):
    name = how.replace(" ", "")
    process = start(place, place.recipe, *place.flags, *FEW, "--name", name)
    wait_for(process, "trial 0001 epoch 3/6")
    asked = time.monotonic()
    process.send_signal(signal.SIGINT if how == "ctrl-c" else signal.SIGKILL)
    rest = process.stdout.read() if how == "ctrl-c" else ""
    code = process.wait()
    if how == "ctrl-c":
        assert code == 130
        assert time.monotonic() - asked < 20
        assert f"--resume {name}" in rest
        (parent,), children = place.runs(name)
        assert parent.info.status == "KILLED"
        assert [child.info.status for child in children] == ["FINISHED", "KILLED"]
        assert children[1].data.tags["stop_reason"] == "interrupted"

    resumed = run("--resume", name, "--tracking-uri", place.uri)

    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "1 of 2 trials are finished" in resumed.stdout
    assert "MLflow runs: 1 closed, 1 opened again" in resumed.stdout
    assert "trial 0001" in resumed.stdout
    assert figures(place, name) == twin
    (parent,), children = place.runs(name)
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}


def test_a_finished_sweep_can_be_given_more_trials(place, twin):
    more = run("--resume", "twin", "--trials", 4, "--tracking-uri", place.uri)
    assert more.returncode == 0, more.stdout + more.stderr
    _, children = place.runs("twin")
    assert len(children) == 4
    assert figures(place, "twin")[:3] == twin


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "optimizer.weight_decay=0.5"], "optimizer.weight_decay"),
        (["--trials", 1], "can only grow"),
        (["--epochs", 9], "epochs: 6 -> 9"),
        (["quickstart"], "another recipe"),
    ],
)
def test_a_changed_sweep_is_refused_with_the_difference(place, twin, arguments, message):
    refused = refusal("--resume", "twin", "--tracking-uri", place.uri, *arguments)
    assert message in refused


def test_an_unknown_sweep_is_a_mistake(place, twin):
    assert "Did you mean 'twin'" in refusal("--resume", "twim", "--tracking-uri", place.uri)


def test_changed_data_is_refused_with_the_difference(place, twin):
    mask = next((place.data / "val" / "masks").iterdir())
    image = place.data / "val" / "images" / mask.name
    kept = image.read_bytes()
    image.write_bytes(next((place.data / "train" / "images").iterdir()).read_bytes())
    try:
        refused = refusal("--resume", "twin", "--trials", 9, "--tracking-uri", place.uri)
    finally:
        image.write_bytes(kept)
    assert "fingerprint" in refused


def test_a_warm_started_sweep_knows_the_others_trials(place, twin):
    warm = run(
        place.recipe, *place.flags, *FEW, "--trials", 1, "--name", "warm", "--warm-start", "twin"
    )
    assert warm.returncode == 0, warm.stdout + warm.stderr
    known = list(Ledger(place.storage / "warm" / "ledger.jsonl", write=False).of("known"))
    assert len(known) >= 3


class TestReplay:
    """The conductor alone: cut its ledger anywhere, and it goes on as if nothing had been."""

    @pytest.fixture(scope="class")
    def recipe(self):
        return load_recipe("quickstart", {"budget.trials": 12})

    def controller(self, recipe, path):
        return SweepController(recipe, 0, Ledger(path), [])

    def without_time(self, controller):
        return [{k: v for k, v in e.items() if k != "at"} for e in controller.ledger.events]

    @pytest.mark.parametrize("cut", [0, 1, 2, 5, 9, 17, 30, 45])
    def test_replayed_from_any_point_it_ends_the_same(self, recipe, tmp_path, cut):
        whole = self.controller(recipe, tmp_path / "whole.jsonl")
        play(whole)
        whole.ledger.close()
        lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
        (tmp_path / "cut.jsonl").write_bytes(b"".join(lines[:cut]))
        again = self.controller(recipe, tmp_path / "cut.jsonl")
        play(again)
        assert self.without_time(again) == self.without_time(whole)
        assert again.rungs.scores == whole.rungs.scores
        states = [[(t.state, t.params, t.value) for t in c.study.trials] for c in (again, whole)]
        assert states[0] == states[1]

    @pytest.mark.parametrize("cut", [9, 30, 45, 60])
    def test_it_has_forgotten_the_same_trials(self, recipe, tmp_path, monkeypatch, cut):
        monkeypatch.setattr(
            "sweeps.search.controller.BoundedStorage", lambda: BoundedStorage(latest=4, best=2)
        )
        self.test_replayed_from_any_point_it_ends_the_same(recipe, tmp_path, cut)
        assert len(self.controller(recipe, tmp_path / "cut.jsonl").study.trials) == 6

    def test_an_interrupted_trial_goes_on(self, recipe, tmp_path):
        first = self.controller(recipe, tmp_path / "l.jsonl")
        trial = first.propose()
        first.epoch_finished(trial.id, {"epoch": 1, "val/miou": score_of(trial.values, 1)})
        first.trial_ended(trial.id, "interrupted")
        first.ledger.close()
        second = self.controller(recipe, tmp_path / "l.jsonl")
        assert second.propose().id == trial.id
        assert second.trials[trial.id].epoch == 1

    def test_the_same_error_from_the_first_trials_ends_the_sweep(self, recipe, tmp_path):
        sweep = self.controller(recipe, tmp_path / "l.jsonl")
        for _ in range(3):
            sweep.trial_ended(sweep.propose().id, "error", "Traceback\nValueError: no")
        assert sweep.propose() is None
        assert "ValueError: no" in sweep.halt_reason

    def test_different_errors_do_not(self, recipe, tmp_path):
        sweep = self.controller(recipe, tmp_path / "l.jsonl")
        for number in range(3):
            sweep.trial_ended(sweep.propose().id, "error", f"ValueError: {number}")
        assert sweep.propose() is not None
