"""A sweep that ends early: on a plateau it does, while it still improves it does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import yaml

from sweeps.config.loading import load_recipe
from sweeps.search.controller import SweepController
from sweeps.search.outlook import FEWEST, is_looked_at
from sweeps.state.ledger import Ledger, rewrite
from sweeps.state.stop_reason import StopReason
from sweeps.tracking.descriptions import sweep_outcome
from unetexp.errors import ConfigError

SPACE = {
    "encoder.freeze": {"kind": "choice", "values": ["none", "stem", "all"]},
    "loss.kind": {"kind": "choice", "values": ["cross_entropy", "dice", "focal"]},
    "loss.gamma": {"kind": "uniform", "low": 1, "high": 3, "when": {"loss.kind": "focal"}},
    "optimizer.lr": {"kind": "loguniform", "low": 1e-5, "high": 1e-1},
}
NOISE = 0.002


@pytest.fixture
def recipe(tmp_path):
    def load(trials=60, **budget):
        path = tmp_path / "recipe.yaml"
        base = {"encoder": {"weights": "none"}, "epochs": 3}
        budget = {"trials": trials, "stop_when": "converged", **budget}
        path.write_text(yaml.safe_dump({"base": base, "space": SPACE, "budget": budget}))
        return load_recipe(str(path), {})

    return load


def plateau(values):
    return 0.8


def bowl(values):
    quality = 0.8 - 0.02 * (math.log10(values["optimizer.lr"]) + 3) ** 2
    return (
        quality
        - 0.03 * (values["loss.kind"] != "focal")
        - 0.02 * (values["encoder.freeze"] == "all")
    )


def slope(values):
    """Ever better towards the end of the range, which trials reach little by little."""
    return 0.3 + 0.1 * (math.log10(values["optimizer.lr"]) + 5)


def play(controller, curve, noise=NOISE, trials=None):
    """Run the sweep; its best true value, and after how many trials it ended."""
    while (trial := controller.propose()) is not None:
        shift = noise * np.random.default_rng(int(trial.id)).normal()
        for epoch in (1, 2, 3):
            score = (curve(trial.values) + shift) * (1 - 0.4**epoch)
            if not controller.epoch_finished(trial.id, {"epoch": epoch, "val/miou": score}):
                controller.trial_ended(trial.id, "completed")
                break
        if len(controller.trials) == trials:
            return


def leader(controller):
    return max(controller.trials.values(), key=lambda trial: trial.progress.best)


@pytest.mark.parametrize(("seed", "noise"), [(0, 0.002), (1, 0.01)])
def test_on_a_plateau_it_ends_soon_and_says_why(recipe, tmp_path, seed, noise):
    sweep = SweepController(recipe(), seed, Ledger(tmp_path / "ledger.jsonl"))
    play(sweep, plateau, noise)
    assert sweep.converged
    assert FEWEST <= len(sweep.trials) <= 40
    (event,) = sweep.ledger.of("converged")
    assert event["probability"] < 0.05
    assert event["left"] == 60 - len(sweep.trials)
    said = list(sweep.ledger.of("said"))[-1]["text"]
    assert f"any of the {event['left']} that were left would gain 0.5 points or more" in said
    assert f"the expected gain is {event['expected_gain']:.2f} points" in said
    assert said[1:] in sweep_outcome(StopReason.CONVERGED, sweep.progress)
    assert sweep.progress.waiting == 0
    assert not sweep.halted


@pytest.mark.parametrize("seed", [0, 1])
def test_what_it_gives_up_is_less_than_the_gain_that_was_wanted(recipe, tmp_path, seed):
    early = SweepController(recipe(), seed, Ledger(tmp_path / "early.jsonl"))
    play(early, bowl)
    whole = SweepController(recipe(stop_when=None), seed, Ledger(tmp_path / "whole.jsonl"))
    play(whole, bowl)
    assert len(whole.trials) == 60
    assert len(early.trials) < 60
    assert bowl(leader(early).values) > bowl(leader(whole).values) - 0.005


def test_while_a_rate_that_was_not_tried_promises_more_it_goes_on(recipe, tmp_path):
    sweep = SweepController(recipe(), 0, Ledger(tmp_path / "ledger.jsonl"))
    ledger = Ledger(tmp_path / "low.jsonl")
    rates = np.geomspace(1e-5, 1e-4, 16)
    for number, rate in enumerate(rates):  # an earlier driver has only tried low ones
        values = {"encoder.freeze": "none", "loss.kind": "dice", "optimizer.lr": float(rate)}
        trial = f"{number:04d}"
        ledger.append("trial", trial=trial, values=values)
        ledger.append("start", trial=trial)
        for epoch in (1, 2, 3):
            metrics = {"epoch": epoch, "val/miou": slope(values) * (1 - 0.4**epoch)}
            ledger.append("epoch", trial=trial, epoch=epoch, metrics=metrics)
        ledger.append("end", trial=trial, reason="completed", error="", epoch=3)
    sweep = SweepController(recipe(), 0, ledger)
    assert not sweep.converged
    play(sweep, slope, noise=0.0, trials=20)
    assert not sweep.converged


def test_a_driver_that_died_before_it_looked_decides_the_same(recipe, tmp_path):
    path = tmp_path / "ledger.jsonl"
    sweep = SweepController(recipe(), 0, Ledger(path))
    play(sweep, plateau)
    events = Ledger(path, write=False).events
    at = next(index for index, event in enumerate(events) if event["event"] == "converged")
    killed = tmp_path / "killed.jsonl"
    rewrite(killed, events[:at])
    resumed = SweepController(recipe(), 0, Ledger(killed))
    assert resumed.converged
    found, before = list(resumed.ledger.of("converged"))[-1], events[at]
    assert found | {"at": 0} == before | {"at": 0}


@pytest.mark.parametrize("change", [{"trials": 80}, {"stop_when": None}])
def test_another_budget_takes_it_up_again(recipe, tmp_path, change):
    path = tmp_path / "ledger.jsonl"
    play(SweepController(recipe(), 0, Ledger(path)), plateau)
    ended = len([event for event in Ledger(path, write=False).events if event["event"] == "end"])
    again = SweepController(recipe(**change), 0, Ledger(path))
    if change.get("stop_when", "") is None:
        assert again.propose() is not None
    else:  # it is asked anew, of the trials that are left now
        play(again, plateau)
        left = [event["left"] for event in again.ledger.of("converged")]
        assert left == [60 - ended, 80 - len(again.ended)]


def test_it_is_asked_more_rarely_the_more_trials_there_are():
    looked = [n for n in range(10_001) if is_looked_at(n)]
    assert looked[:3] == [12, 13, 14]
    assert len(looked) < 150


def test_several_objectives_have_no_single_gain(recipe, tmp_path):
    path = tmp_path / "several.yaml"
    path.write_text(yaml.safe_dump(recipe().tree() | {"objective": ["val/miou", "latency_ms"]}))
    with pytest.raises(ConfigError, match=r"budget\.stop_when converged"):
        load_recipe(str(path), {})
