"""Choosing by further seeds, replayed: what it costs, and that more knowledge is no worse."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.searching import confirming
from benchmarks.searching.confirming import PLAIN, choices, table
from benchmarks.searching.landscape import Landscape, Repeats
from tests.support.drawn_curves import drawn_curves

FEW, SEEDS = 3, 4


@pytest.fixture(scope="module")
def landscape():
    return Landscape(drawn_curves(configs=48), "drawn")


@pytest.fixture(scope="module")
def found(landscape):
    return [choices(landscape, 12, seed, FEW, SEEDS) for seed in range(8)]


def test_a_race_trains_at_most_what_everybody_with_every_seed_takes(found):
    for plain, every, *races in found:
        assert (plain.way, plain.trainings) == (PLAIN, 0)
        assert every.trainings == FEW * SEEDS
        costs = [race.trainings for race in races]
        assert costs == sorted(costs)  # the wider the interval, the fewer are dropped
        assert 2 * FEW <= costs[0] <= costs[-1] <= FEW * SEEDS


def test_where_noise_is_large_further_seeds_choose_better_than_luck():
    noisy = Landscape(drawn_curves(configs=48), "drawn")
    noisy.repeats = Repeats(noisy.repeats.ends, 8 * noisy.repeats.residuals)
    rows = [choices(noisy, 12, seed, FEW, SEEDS)[:2] for seed in range(12)]
    lost = np.array([[choice.lost for choice in row] for row in rows])
    assert (lost >= 0).all()
    assert lost[:, 1].mean() < lost[:, 0].mean()


def test_where_the_images_leave_all_open_a_race_drops_nobody(landscape, monkeypatch):
    monkeypatch.setattr(confirming, "HALF_WIDTHS", (1.0,))
    for seed in range(4):
        _, every, race = choices(landscape, 12, seed, FEW, SEEDS)
        assert (race.lost, race.trainings) == (every.lost, every.trainings)


def test_the_table_counts_wrong_choices(found):
    text = table([choice for row in found for choice in row])
    assert f"| {PLAIN} | " in text
    assert text.count(" of 8 |") == 2 + len(confirming.HALF_WIDTHS)
