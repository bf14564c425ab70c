"""Half a space first: a sweep that grows against one that is begun again."""

from __future__ import annotations

import pytest

from benchmarks.searching.growing import halved, replay_growing
from benchmarks.searching.landscape import Landscape
from benchmarks.searching.replay import MemoryLedger, replay
from sweeps.search.controller import SweepController
from tests.support.drawn_curves import drawn_curves

TRAININGS = 12.0


@pytest.fixture(scope="module")
def landscape():
    return Landscape(drawn_curves(), "drawn")


def grown(landscape, seed, keeps, devices=1):
    time = TRAININGS * landscape.training_s
    return replay_growing(landscape, devices, time, seed, keeps=keeps)


def test_half_of_one_dimension_is_left(landscape):
    narrow = halved(landscape.recipe, seed=3)
    whole = landscape.recipe.space
    (path,) = (path for path in whole if narrow.space[path] != whole[path])
    assert all(whole[path].admits(value) for value in narrow.space[path].samples())
    assert halved(landscape.recipe, seed=3) == narrow


@pytest.mark.parametrize("devices", [1, 4])
def test_the_first_half_is_the_same_and_the_leader_stays(landscape, devices):
    time = TRAININGS * landscape.training_s
    narrow = halved(landscape.recipe, 0)
    first = replay(
        SweepController(narrow, 0, MemoryLedger(), at_once=devices), landscape, devices, time / 2, 0
    )
    for keeps in (True, False):
        found = grown(landscape, 0, keeps, devices)
        assert found.steps[: len(first.steps)] == first.steps
        assert found.best >= first.best
        assert found.epochs > first.epochs
        assert found.steps[-1][0] <= time


def test_only_what_grows_keeps_its_trials(landscape):
    kept, fresh = (grown(landscape, 0, keeps) for keeps in (True, False))
    assert kept.trials > fresh.trials
    assert grown(landscape, 0, True) == kept
