"""What the report says of choices that differ in cost, on planted sweeps."""

from __future__ import annotations

import pytest

from sweeps.report.effects import effects
from sweeps.report.equal_time import at_equal_time
from sweeps.report.findings import findings
from sweeps.report.sweep_data import load_sweep_data
from sweeps.tracking.store import open_store
from tests.support.planted_sweeps import write_sweep

RECIPE = """
space:
  encoder.freeze: {kind: choice, values: [none, all]}
  loss.kind: {kind: choice, values: [dice, focal]}
  optimizer.lr: {kind: loguniform, low: 1.0e-4, high: 1.0e-2}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return open_store(f"sqlite:///{tmp_path_factory.mktemp('equal_time')}/mlflow.db")


def trial(freeze, curve, cost, loss="dice", reason="completed"):
    params = {"encoder.freeze": freeze, "loss.kind": loss, "optimizer.lr": 1e-3}
    return {"params": params, "curve": curve, "cost": cost, "reason": reason}


def said(store, name, trials):
    write_sweep(store, name, trials, recipe=RECIPE)
    data = load_sweep_data(store, name)
    sentences = at_equal_time(data)
    facts = [f.sentence for f in findings(data, effects(data.comparable, data.settings))]
    assert all(sentence in facts for sentence in sentences)
    return sentences


def test_a_fast_choice_has_more_trials_in_the_same_seconds(store):
    trials = [
        trial("none", [0.50, 0.60, 0.70], 90, "focal"),  # 30 s an epoch
        trial("all", [0.40, 0.41, 0.42], 30),  # 10 s
        trial("all", [0.40, 0.45], 20, "focal", reason="asha"),
        trial("none", [0.65, 0.75, 0.95], 90),  # its first epoch ends at 120 s, the others later
        trial("all", [0.50, 0.55, 0.60], 30),
        trial("all", [0.50, 0.55, 0.65], 40, "focal"),
    ]
    (sentence,) = said(store, "unlike", trials)
    assert sentence == (
        "At equal device time, 2 min each and the trials in the order of their proposals, the best "
        "mIoU was: encoder.freeze = none 70.0% with 2 trials (30 s an epoch); "
        "encoder.freeze = all 65.0% with 4 trials (11 s an epoch). That is what "
        "this sweep found, not a test."
    )


def test_nothing_is_said_where_choices_cost_alike(store):
    trials = [trial(freeze, [0.5, 0.6, 0.7], 30) for freeze in ("none", "all") * 3]
    assert said(store, "alike", trials) == []


def test_one_trial_of_a_choice_is_too_few(store):
    trials = [trial("none", [0.5], 90), *[trial("all", [0.5, 0.6, 0.7], 30)] * 3]
    assert said(store, "few", trials) == []


def test_trials_without_an_epoch_or_a_score_do_not_count(store):
    trials = [
        *[trial("none", [], 90, reason="oom")] * 3,
        *[trial("all", [0.5, 0.6, 0.7], 30)] * 3,
        *[trial("none", [float("nan")], 90, reason="nan")] * 2,
    ]
    assert said(store, "failed", trials) == []


def test_only_the_setting_that_differs_most_is_told(store):
    """The loss costs nothing, but was tried with one of two encoders more often."""
    trials = [
        *[trial("none", [0.5, 0.6, 0.7], 90, "focal")] * 3,
        *[trial("all", [0.5, 0.6, 0.7], 30, "dice")] * 3,
        trial("none", [0.5, 0.6, 0.7], 90, "dice"),
    ]
    (sentence,) = said(store, "confounded", trials)
    assert "encoder.freeze" in sentence
    assert "loss.kind" not in sentence
