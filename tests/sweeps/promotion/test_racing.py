"""Races of trials with new seeds: who is dropped, and what is trained no more."""

from __future__ import annotations

import numpy as np
import pytest

from sweeps.promotion.confirmation import racing
from sweeps.promotion.confirmation.outcome import Confirmation, SeedScores
from sweeps.promotion.confirmation.racing import Race, raced
from sweeps.promotion.final_training.validation import Validated
from sweeps.tracking.store import open_store
from tests.support.promotable import Place, Trial
from tests.support.promoting import call
from tests.support.trials_here import trials_here
from unetexp.metrics.bootstrap import compare_paired

IMAGES, PIXELS = 40, 1000


def validated(right, spread=0.05, images=IMAGES, draw=0):
    """A model of two classes that gets a share of the pixels right, differently on each image."""
    rng = np.random.default_rng(draw)
    shares = np.clip(rng.normal(right, spread, images), 0, 1)
    hits = (shares * PIXELS).astype(int)
    matrices = np.zeros((images, 2, 2), dtype=np.int64)
    matrices[:, 0, 0] = matrices[:, 1, 1] = hits
    matrices[:, 0, 1] = matrices[:, 1, 0] = PIXELS - hits
    return Validated(right, matrices)


def compared(one, other):
    return compare_paired(one.matrices, other.matrices)


def race_of(**found):
    race = Race(compared)
    for trial, models in found.items():
        for seed, model in enumerate(models):
            race.trained(trial, seed, model)
    return race


def test_one_seed_drops_nobody():
    race = race_of(a=[validated(0.9)], b=[validated(0.2)])
    assert race.behind(["a", "b"]) == {}


def test_behind_with_each_seed_and_over_the_images_is_dropped():
    a, b = [validated(0.9, draw=1), validated(0.9, draw=2)], [validated(0.7, draw=3)] * 2
    why = race_of(a=a, b=b).behind(["a", "b"])
    assert set(why) == {"b"}
    assert "behind trial a over the images of 2 seeds" in why["b"]
    assert race_of(a=a, b=b).behind(["b"]) == {}  # who alone is left leads


def test_ahead_with_a_seed_stays():
    a, b = [validated(0.9), validated(0.6)], [validated(0.4), validated(0.7)]
    assert race_of(a=a, b=b).behind(["a", "b"]) == {}


def test_behind_by_less_than_the_images_vary_stays():
    a = [validated(0.71, spread=0.2, draw=1), validated(0.71, spread=0.2, draw=2)]
    b = [validated(0.70, spread=0.2, draw=3), validated(0.70, spread=0.2, draw=4)]
    assert race_of(a=a, b=b).behind(["a", "b"]) == {}


def test_a_single_image_drops_nobody():
    a, b = [validated(0.9, images=1)] * 2, [validated(0.2, images=1)] * 2
    assert race_of(a=a, b=b).behind(["a", "b"]) == {}


def test_trainings_that_failed_drop_nobody():
    race = race_of(a=[validated(0.9, draw=1), validated(0.9, draw=2)], b=[validated(0.1)])
    assert race.behind(["a", "b", "c"]) == {}


@pytest.mark.parametrize("draw", range(20))
def test_alike_ones_are_rarely_dropped(draw):
    """The same settings under two names: luck of the seed alone separates them."""
    rng = np.random.default_rng(draw)
    found = {
        trial: [validated(0.8 + rng.normal(0, 0.005), draw=seed) for seed in range(3)]
        for trial in "ab"
    }
    dropped = race_of(**found).behind("ab")
    ahead = [one.score > other.score for one, other in zip(*found.values(), strict=True)]
    assert not dropped or len(set(ahead)) == 1


def test_who_is_dropped_gets_no_further_seed():
    race, trained = Race(compared), []
    rights = {"a": 0.9, "b": 0.6, "c": 0.9}

    def train(trials, seed):
        trained.append((seed, list(trials)))
        for trial in trials:
            race.trained(trial, seed, validated(rights[trial], draw=seed))

    assert set(raced(list(rights), [7, 8, 9], train, race)) == {"b"}
    assert trained == [(7, ["a", "b", "c"]), (8, ["a", "b", "c"]), (9, ["a", "c"])]


def test_a_race_ends_when_one_is_left():
    race, trained = Race(compared), []

    def train(trials, seed):
        trained.append(seed)
        for trial in trials:
            race.trained(trial, seed, validated(0.9 if trial == "a" else 0.5, draw=seed))

    raced(["b", "a"], range(10), train, race)
    assert trained == [0, 1]


def test_the_verdict_compares_with_those_that_are_left():
    left = SeedScores("0001", 0.8, {1: 0.8, 2: 0.8, 3: 0.8})
    gone = SeedScores("0002", 0.8, {1: 0.5, 2: 0.85}, dropped="no further seed")
    chosen = SeedScores("0000", 0.9, {1: 0.9, 2: 0.9, 3: 0.9})
    found = Confirmation("x-confirm, x-confirm-2", (1, 2, 3), (chosen, left, gone))
    assert "0000 is confirmed: 0.1000 above trial 0001" in found.verdict()
    assert "; no further seed" in found.describe()[3]


def test_seeds_that_only_one_of_them_had_do_not_count_in_the_verdict():
    chosen = SeedScores("0000", 0.9, {1: 0.5, 2: 0.5}, dropped="no further seed")
    left = SeedScores("0001", 0.8, {1: 0.6, 2: 0.6, 3: 0.9, 4: 0.9})
    found = Confirmation("x-confirm", (1, 2, 3, 4), (chosen, left))
    assert "trial 0001 is 0.1000 above it on average" in found.verdict()


@pytest.mark.slow
def test_a_promotion_races_its_best_with_sweeps_of_a_seed(tmp_path, monkeypatch):
    place = Place(tmp_path)
    place.sweep("pair", Trial(0.9, place.model(1)), Trial(0.8, place.model(2)))
    monkeypatch.setattr(racing.Race, "_why", lambda *_: "no further seed, in this test")
    asked = ["--confirm", 2, "--seeds", 4, "--race", "--storage", tmp_path / "runs"]
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with trials_here():
        code, said = call(uri, "pair", *asked)
    assert code == 0, said
    assert "Best val/miou over 2 new seeds (sweep pair-confirm, pair-confirm-2)" in said
    assert said.count("; no further seed, in this test") == 1
    store = open_store(uri)
    for sweep, seed in (("pair-confirm", "1"), ("pair-confirm-2", "2")):
        runs = store.trial_runs(store.sweep_run(sweep).info.run_id)
        assert [run.data.params["seed"] for run in runs] == [seed, seed]

    code, said = call(uri, "pair", *asked)  # as after an interruption: nothing is trained twice
    assert code == 0, said
    for sweep in ("pair-confirm", "pair-confirm-2"):
        assert f"sweep {sweep} has trained this already" in said
