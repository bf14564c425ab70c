"""Objectives: how they are written, what is refused, and the Pareto front."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sweeps.config.budget import Objective
from sweeps.config.goals import TAG, USUAL, Goals, check_classes, goals_of
from sweeps.config.loading import load_recipe
from sweeps.config.recipe import Recipe
from unetexp.component import decode
from unetexp.errors import ConfigError


def goals(*metrics):
    return Goals(tuple(decode(Objective, metric) for metric in metrics))


@pytest.mark.parametrize(
    ("changes", "described"),
    [
        ({}, "val/miou (max)"),
        ({"objective.metric": "val/dice"}, "val/dice (max)"),
        ({"objective": "val/iou/brain"}, "val/iou/brain (max)"),
        ({"objective": [{"metric": "val/dice/brain"}]}, "val/dice/brain (max)"),
        (
            {"objective": ["val/miou", {"metric": "latency_ms", "mode": "min"}]},
            "val/miou (max), latency_ms (min)",
        ),
        (
            {"objective": ["val/pixel_accuracy", "parameters", "cost/device_s"]},
            "val/pixel_accuracy (max), parameters (min), cost/device_s (min)",
        ),
    ],
)
def test_a_recipe_names_one_objective_or_several(changes, described):
    recipe = load_recipe("quickstart", changes)
    assert recipe.goals.describe() == described
    assert decode(Recipe, recipe.tree()) == recipe
    assert goals_of(recipe.goals.tag()) == recipe.goals


def test_the_usual_objective_leaves_no_trace():
    recipe = load_recipe("quickstart", {})
    assert recipe.tree()["objective"] == {"metric": "val/miou", "mode": "max"}
    assert recipe.goals == USUAL
    assert recipe.goals.tag() == {}
    assert goals_of({}) == USUAL
    assert TAG in load_recipe("quickstart", {"objective": "val/dice"}).goals.tag()


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("val/mio", r"objective.metric: 'val/mio' is not a choice. Did you mean 'val/miou'\?"),
        (["val/miou", "latency"], r"objective.1.metric: 'latency' .* Did you mean 'latency_ms'\?"),
        ("val/iou/", "is not a choice"),
        ("latency_ms", r"cannot be the first or only one.*\[val/miou, latency_ms\]"),
        (["parameters", "val/miou"], "parameters cannot be the first"),
        (["val/miou", "val/miou"], "val/miou is given twice"),
        ([], "at least 1 item"),
        ({"metric": "val/dice", "mode": "min"}, "that of val/dice is max"),
        (["val/miou", {"metric": "latency_ms", "mode": "max"}], "that of latency_ms is min"),
        (["val/miou", {"metrc": "latency_ms"}], "objective.1.metrc: .* Did you mean 'metric'"),
    ],
)
def test_a_bad_objective_is_a_mistake_that_names_it(objective, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe("quickstart", {"objective": objective})


def test_a_class_that_cannot_be_measured_is_refused():
    names, pixels = ("background", "lesion", "vessel"), (90, 10, 0)
    check_classes(goals("val/iou/lesion", "val/dice/background", "latency_ms"), names, pixels)
    with pytest.raises(ConfigError, match=r"'leson' is not a choice\. Did you mean 'lesion'"):
        check_classes(goals("val/miou", "val/iou/leson"), names, pixels)
    with pytest.raises(ConfigError, match="no mask of the val split holds the class vessel"):
        check_classes(goals("val/iou/vessel"), names, pixels)


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_no_other_point_beats(seed):
    three = goals("val/miou", "latency_ms", "val/dice")
    points = np.random.default_rng(seed).integers(0, 4, (25, 3)).astype(float)
    points[::9, 1] = np.nan
    signs = np.array([1, -1, 1])
    beaten = {
        i
        for i, j in itertools.permutations(range(25), 2)
        if (signs * points[j] >= signs * points[i]).all() and (points[j] != points[i]).any()
    }
    whole = {i for i in range(25) if np.isfinite(points[i]).all()}
    assert three.front(points.tolist()) == sorted(whole - beaten)
    assert three.front([]) == []


@pytest.mark.parametrize(
    ("metric", "label"),
    [
        ("val/miou", "mIoU"),
        ("val/dice", "Dice"),
        ("val/iou/left lung", "IoU of left lung"),
        ("val/dice/a/b", "Dice of a/b"),
    ],
)
def test_a_score_has_a_name_for_readers(metric, label):
    assert goals(metric, "latency_ms").label == label
