"""Sweeps that are stopped, killed and resumed, from the command line."""

from __future__ import annotations

import signal
import time
from dataclasses import replace

import pytest

from sweeps.cli import run_sweep
from sweeps.config.loading import load_recipe
from sweeps.search.bounded_storage import BoundedStorage
from sweeps.search.controller import SweepController
from sweeps.state.ledger import Ledger
from tests.support.databases import new_database
from tests.support.pretend_curves import play, score_of
from tests.support.sweep_command import FEW, Place, refusal, results, run_here, start, wait_for
from tests.support.trials_here import trials_here
from unetexp.compute.measured import Measured, TimedStep
from unetexp.compute.settings import ComputeSettings
from unetexp.system.machine import cpu_model


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("resume"))
    new_database(place.root / "mlflow.db")
    return place


@pytest.fixture(scope="module")
def twin(place):
    """The sweep that nobody disturbed, whose trials needed no workers."""
    with trials_here():
        run_here(place.recipe, *place.flags, *FEW, "--name", "twin")
    return results(place, "twin")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_that_was_killed_and_then_interrupted_equals_its_twin(place, twin):
    tracked = ("--tracking-uri", place.uri)
    killed = start(place.recipe, *place.flags, *FEW, "--name", "disturbed")
    wait_for(killed, "trial 0001 epoch 2/4")
    killed.kill()
    killed.wait()

    interrupted = start("--resume", "disturbed", *tracked)
    found = wait_for(interrupted, "trial 0002 epoch 1/4")
    asked = time.monotonic()
    interrupted.send_signal(signal.SIGINT)
    rest = interrupted.stdout.read()
    assert interrupted.wait() == 130
    assert time.monotonic() - asked < 20
    assert "1 of 2 trials are finished" in found
    assert "MLflow runs: 1 closed, 1 opened again" in found
    assert "trial 0001" in found
    assert "--resume disturbed" in rest
    (parent,), children = place.runs("disturbed")
    assert parent.info.status == "KILLED"
    assert [child.info.status for child in children] == ["FINISHED", "FINISHED", "KILLED"]
    assert children[2].data.tags["stop_reason"] == "interrupted"

    resumed = run_here("--resume", "disturbed", *tracked)

    assert "2 of 3 trials are finished" in resumed
    assert "MLflow runs: 2 closed, 1 opened again" in resumed
    assert results(place, "disturbed") == twin
    (parent,), children = place.runs("disturbed")
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}


@pytest.mark.timeout(900)
def test_a_resume_computes_as_the_preflight_chose_and_measures_nothing(place, monkeypatch):
    step = TimedStep(ComputeSettings("bf16", "contiguous"), 1, 1, 0.1)
    measured = Measured(cpu_model(), "slim", 4, 32, 1, (step,))

    def chosen(plan, data, log):
        return replace(plan, measured=(measured,))

    def again(*_):
        raise AssertionError("a resume measures nothing")

    few = [*(argument for argument in FEW if argument != "--skip-preflight"), "--epochs", 1]
    with trials_here():
        monkeypatch.setattr(run_sweep, "preflight", chosen)
        run_here(place.recipe, *place.flags, *few, "--trials", 1, "--name", "chosen")
        monkeypatch.setattr(run_sweep, "preflight", again)
        run_here("--resume", "chosen", "--trials", 2, "--tracking-uri", place.uri)

    (parent,), children = place.runs("chosen")
    assert "bf16 contiguous" in parent.data.tags["sweep.measured"]
    assert len(children) == 2
    for child in children:
        assert child.data.tags["machine.precision"] == "bf16"
        assert child.data.tags["machine.memory_format"] == "contiguous"
        assert child.data.tags["machine.chosen_by"] == "measurement"


@pytest.mark.slow
def test_a_finished_sweep_can_be_given_more_trials(place, twin):
    run_here("--resume", "twin", "--trials", 4, "--tracking-uri", place.uri)
    _, children = place.runs("twin")
    assert len(children) == 4
    assert results(place, "twin")[:3] == twin


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "optimizer.weight_decay=0.5"], "optimizer.weight_decay"),
        (["--trials", 1], "can only grow"),
        (["--epochs", 9], "epochs: 4 -> 9"),
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


@pytest.mark.slow
def test_a_warm_started_sweep_knows_the_others_trials(place, twin):
    run_here(
        place.recipe, *place.flags, *FEW, "--trials", 1, "--name", "warm", "--warm-start", "twin"
    )
    known = list(Ledger(place.storage / "warm" / "ledger.jsonl", write=False).of("known"))
    assert len(known) >= 3


class TestReplay:
    """The controller alone: wherever its ledger is cut, it continues as if uninterrupted."""

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

    @pytest.mark.parametrize("cut", [2, 5, 17])
    def test_what_a_first_point_leaves_out_stays_as_it_was_drawn(self, recipe, tmp_path, cut):
        points = ({"loss.kind": "focal"}, {"encoder.kind": "timm"})
        partial = recipe.model_copy(update={"points": points})
        self.test_replayed_from_any_point_it_ends_the_same(partial, tmp_path, cut)

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
