"""Dimensions, conditions and sampling."""

from __future__ import annotations

import pickle

import optuna
import pytest
from pydantic import TypeAdapter

from sweeps.config.space import Space, search_order, suggest
from unetexp.component import decode
from unetexp.errors import ConfigError

SPACE = {
    "loss.gamma": {"kind": "uniform", "low": 1, "high": 3, "when": {"loss.kind": "focal"}},
    "loss.kind": {"kind": "choice", "values": ["dice", "focal"]},
    "optimizer.lr": {"kind": "loguniform", "low": 1e-4, "high": 1e-2},
    "batch_size": {"kind": "int", "low": 2, "high": 8},
}


def draw(space, count=40, fixed=None):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    return [suggest(space, study.ask(), fixed or {}) for _ in range(count)]


def test_values_lie_in_their_dimensions():
    space = decode(Space, SPACE)
    for values in draw(space):
        assert all(space[path].admits(value) for path, value in values.items())
        assert isinstance(values["batch_size"], int)


def test_a_conditional_dimension_is_drawn_just_when_its_condition_holds():
    for values in draw(decode(Space, SPACE)):
        assert ("loss.gamma" in values) == (values["loss.kind"] == "focal")


def test_a_condition_may_name_a_fixed_value_and_a_list():
    space = decode(Space, {"loss.gamma": {**SPACE["loss.gamma"], "when": {"loss.kind": ["focal"]}}})
    assert "loss.gamma" in draw(space, 1, {"loss.kind": "focal"})[0]
    assert "loss.gamma" not in draw(space, 1, {"loss.kind": "dice"})[0]


def test_conditions_come_before_what_waits_for_them():
    order = search_order(decode(Space, SPACE))
    assert order.index("loss.kind") < order.index("loss.gamma")


def test_conditions_in_a_ring_are_a_mistake():
    ring = {
        "a": {"kind": "uniform", "low": 0, "high": 1, "when": {"b": 1}},
        "b": {"kind": "uniform", "low": 0, "high": 1, "when": {"a": 1}},
    }
    with pytest.raises(ConfigError, match="depend on each other"):
        search_order(decode(Space, ring))


@pytest.mark.parametrize(
    ("dimension", "message"),
    [
        ({"kind": "choise", "values": [1]}, "Did you mean 'choice'"),
        ({"kind": "choice", "values": []}, "values"),
        ({"kind": "choice", "values": ["a", "a"]}, "twice"),
        ({"kind": "uniform", "low": 2, "high": 1}, "below high"),
        ({"kind": "loguniform", "low": 0, "high": 1}, "greater than 0"),
        ({"kind": "uniform", "low": 0, "hihg": 1}, "Did you mean 'high'"),
    ],
)
def test_a_bad_dimension_is_a_mistake_that_says_so(dimension, message):
    with pytest.raises(ConfigError, match=message):
        decode(Space, {"optimizer.lr": dimension})


def test_a_space_pickles():
    space = decode(Space, SPACE)
    assert pickle.loads(pickle.dumps(space)) == space


def test_every_dimension_round_trips_as_data():
    space = decode(Space, SPACE)
    assert TypeAdapter(Space).validate_python({p: d.tree() for p, d in space.items()}) == space
