"""What is tried first: settings that did well on the other sets of the table."""

from __future__ import annotations

import pytest

from benchmarks.searching.arms import ARMS
from benchmarks.searching.first_points import COUNT, FIRST, best_elsewhere
from benchmarks.searching.landscape import Landscape
from benchmarks.searching.replay import MemoryLedger
from tests.support.drawn_curves import drawn_curves, true_curve


@pytest.fixture(scope="module")
def curves():
    return drawn_curves(configs=24, epochs=9, sets=("one", "two", "three"))


@pytest.fixture(scope="module")
def landscape(curves):
    return Landscape(curves, "one")


def test_they_are_the_best_of_the_other_sets(curves, landscape):
    points = best_elsewhere(curves, "one", landscape.recipe)
    every = sorted((max(true_curve(v, 9)) for v in landscape.configurations), reverse=True)
    assert len(points) == COUNT
    for point in points:
        assert point in landscape.configurations
        assert max(true_curve(point, 9)) >= every[2 * COUNT]  # noise may swap neighbours


def test_the_replayed_set_itself_is_not_known(curves, landscape):
    rows = curves.rows.copy()
    rows.loc[rows["set"] == "one", "val/miou"] = 0.0
    blank = type(curves)(rows, curves.origin)
    points = best_elsewhere(curves, "one", landscape.recipe)
    assert best_elsewhere(blank, "one", landscape.recipe) == points


def test_of_a_single_set_nothing_is_known():
    alone = drawn_curves(configs=8, epochs=3)
    assert best_elsewhere(alone, "drawn", Landscape(alone, "drawn").recipe) == ()


def test_a_sweep_tries_them_first(curves, landscape):
    points = best_elsewhere(curves, "one", landscape.recipe)
    recipe = landscape.recipe.model_copy(update={"points": points})
    arm = ARMS["tpe, asha, first the best elsewhere"]
    controller = arm.controller(recipe, 0, MemoryLedger(), 1, landscape.training_s)
    tried = [controller.propose().values for _ in range(COUNT)]
    assert tried == list(points)


def test_the_quickstarts_points_fit_the_recorded_space(curves, landscape):
    points = FIRST["the quickstart's"](curves, "one", landscape.recipe)
    assert points
    for point in points:
        assert landscape.row(point) >= 0  # a cell of the grid
