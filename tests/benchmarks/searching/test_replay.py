"""Replays on a table from a formula: the clock, parity with the conductor, every arm."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.searching.arms import ARMS, OURS, RANDOM, SLOW
from benchmarks.searching.landscape import Landscape, Repeats
from benchmarks.searching.promotions import Ladder
from benchmarks.searching.replay import MemoryLedger, replay
from sweeps.search.controller import SweepController
from sweeps.state.ledger import Ledger
from tests.support.drawn_curves import NOISE, SECONDS, drawn_curves, true_curve

EPOCHS = 27


@pytest.fixture(scope="module")
def landscape():
    return Landscape(drawn_curves(), "drawn")


def replayed(landscape, arm, seed=0, devices=1, trainings=8.0):
    controller = ARMS[arm].controller(landscape.recipe, seed, MemoryLedger(), devices, 9.0)
    device_s = trainings * landscape.training_s
    return controller, replay(controller, landscape, devices, device_s, seed)


def decisions(controller):
    return [
        (trial.id, dict(trial.values), trial.epoch, trial.stop_reason)
        for trial in controller.trials.values()
    ]


def test_a_replay_decides_as_the_conductor_that_is_fed_the_same(landscape, tmp_path):
    swept, _ = replayed(landscape, OURS, trainings=12)
    ended = [trial for trial in swept.trials.values() if trial.ended]
    changes = {"budget": landscape.recipe.budget.model_copy(update={"trials": len(ended)})}
    recipe = landscape.recipe.model_copy(update=changes)
    fed = SweepController(recipe, 0, Ledger(tmp_path / "ledger.jsonl"))
    while (trial := fed.propose()) is not None:
        scores = landscape.run(trial.values, np.random.default_rng((0, int(trial.id))))
        for epoch, score in enumerate(scores, start=1):
            if not fed.epoch_finished(trial.id, {"epoch": epoch, "val/miou": float(score)}):
                fed.trial_ended(trial.id, "completed")
                break
    assert decisions(fed) == decisions(swept)[: len(ended)]
    assert {reason for *_, reason in decisions(fed)} == {"completed", "asha"}


@pytest.mark.parametrize("devices", [1, 4])
def test_the_clock_adds_up_the_seconds_of_epochs(landscape, devices):
    swept, found = replayed(landscape, RANDOM, devices=devices)
    started = {event["trial"]: event["at"] for event in swept.ledger.of("start")}
    for event in swept.ledger.of("epoch"):
        seconds = landscape.seconds[landscape.row(swept.trials[event["trial"]].values)]
        expected = started[event["trial"]] + seconds[: event["epoch"]].sum()
        assert event["at"] == pytest.approx(expected)
    spent = sum(trial.progress.wall_s() for trial in swept.trials.values())
    assert spent <= 8 * landscape.training_s
    assert spent > 8 * landscape.training_s - devices * 1.1 * max(SECONDS.values())
    times = [event["at"] for event in swept.ledger.events]
    assert times == sorted(times)
    assert found.epochs == sum(trial.epoch for trial in swept.trials.values())
    busy = [0] * len(times)
    open_trials: set[str] = set()
    for place, event in enumerate(swept.ledger.events):
        if event["event"] == "start":
            open_trials.add(event["trial"])
        if event["event"] == "end":
            open_trials.remove(event["trial"])
        busy[place] = len(open_trials)
    assert max(busy) == devices


@pytest.mark.parametrize("arm", [OURS, "bohb: tpe, hyperband", "tpe, promotions 3/3"])
def test_a_seed_decides_a_replay(landscape, arm):
    first, second = (replayed(landscape, arm, seed=3, devices=4) for _ in range(2))
    assert decisions(first[0]) == decisions(second[0])
    assert first[1] == second[1]
    assert decisions(replayed(landscape, arm, seed=4, devices=4)[0]) != decisions(first[0])


@pytest.mark.parametrize("arm", [name for name in ARMS if name not in SLOW])
def test_every_arm_runs_and_its_regret_falls(landscape, arm):
    _, found = replayed(landscape, arm)
    regrets = [regret for _, regret in found.steps]
    assert regrets[-1] < regrets[0]
    assert regrets[-1] < 0.15
    assert found.trials > 3
    if landscape.recipe.base.epochs * found.trials > found.epochs:
        assert found.full < found.trials


def test_the_gaussian_process_proposes_too(landscape):
    swept, _ = replayed(landscape, "gp", trainings=7)
    assert len(swept.trials) > 6  # the last ones after its five random ones


def test_a_promoted_trial_goes_on_where_it_paused(landscape):
    swept, found = replayed(landscape, "random, promotions 3/3", trainings=12)
    epochs: dict[str, list[int]] = {}
    for event in swept.ledger.of("epoch"):
        epochs.setdefault(event["trial"], []).append(event["epoch"])
    assert all(seen == list(range(1, len(seen) + 1)) for seen in epochs.values())
    assert found.full > 0
    starts = [event["trial"] for event in swept.ledger.of("start")]
    assert max(map(starts.count, starts)) == 3  # at the first epoch and after two rungs
    assert swept.ladder.paused


def test_a_ladder_promotes_the_best_of_the_highest_rung_first():
    ladder = Ladder([1, 3], 2)
    ladder.pause("a", 1, 0.5)
    assert ladder.promote() is None  # the best half of one is none
    ladder.pause("b", 1, 0.6)
    assert ladder.promote() == "b"
    assert ladder.promote() is None
    ladder.pause("b", 3, 0.7)
    for name, score in (("c", 0.9), ("d", 0.1)):
        ladder.pause(name, 1, score)
    assert ladder.promote() == "c"
    ladder.pause("c", 3, 0.6)
    assert ladder.promote() == "b"  # of rung 3
    assert ladder.paused == {"a", "c", "d"}


def test_the_forest_comes_near_the_formula(landscape):
    rng = np.random.default_rng(1)
    errors = []
    for values in landscape.configurations:
        cell = landscape.scores[landscape.row(values)]
        errors.append(abs(cell.max() - true_curve(values, EPOCHS).max()))
        assert landscape.run(values, rng).shape == (EPOCHS,)
    assert np.mean(errors) < 0.02
    assert landscape.seconds.min() > 0.95 * SECONDS["timm"]
    assert landscape.seconds.max() < 1.05 * SECONDS["resnet"]


def test_the_noise_is_that_of_the_repeated_runs(landscape):
    rng = np.random.default_rng(0)
    drawn = np.array([landscape.repeats.draw(0.7, rng) for _ in range(400)])
    assert drawn.std() == pytest.approx(NOISE, rel=0.2)
    assert abs(drawn.mean()) < NOISE / 4
    nothing = Repeats(np.array([]), np.zeros((0, EPOCHS)))
    assert not nothing.draw(0.7, rng).any()


def test_a_value_falls_into_the_nearest_cell(landscape):
    values = dict(landscape.configurations[0])
    low = 1e-4
    step = math.log(1e-2 / low) / 64
    cells = [landscape.row({**values, "optimizer.lr": low * math.exp(n * step)}) for n in range(65)]
    assert len(set(cells)) == 65
    near = landscape.row({**values, "optimizer.lr": low * math.exp(7.4 * step)})
    assert near == cells[7]
