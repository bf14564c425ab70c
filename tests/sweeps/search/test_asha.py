"""ASHA's rungs: parity with Ray's scheduler, and what must hold for any order of results."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.schedulers.trial_scheduler import TrialScheduler

from sweeps.search.asha import AshaRungs, milestones


@given(
    scores=st.lists(st.floats(0, 1), min_size=1, max_size=40),
    grace=st.integers(1, 4),
    factor=st.sampled_from([2, 3, 4]),
)
def test_decides_as_rays_own_scheduler_does(scores, grace, factor):
    epochs = 27
    ray = AsyncHyperBandScheduler(
        time_attr="epoch",
        metric="score",
        mode="max",
        max_t=epochs,
        grace_period=grace,
        reduction_factor=factor,
    )
    ours = AshaRungs(grace, epochs, factor)
    for number, score in enumerate(scores):
        trial = SimpleNamespace(trial_id=str(number))
        ray.on_trial_add(None, trial)
        for epoch in range(1, epochs):
            theirs = ray.on_trial_result(None, trial, {"epoch": epoch, "score": score})
            goes_on = ours.admits(str(number), epoch, score)
            assert goes_on == (theirs == TrialScheduler.CONTINUE)
            if not goes_on:
                break


def test_a_repeated_result_changes_nothing():
    rungs = AshaRungs(1, 9, 3)
    rungs.admits("a", 1, 0.9)
    before = {epoch: dict(scores) for epoch, scores in rungs.scores.items()}
    assert rungs.admits("a", 1, 0.1)
    assert rungs.scores == before


@pytest.mark.parametrize(
    ("grace", "epochs", "factor", "expected"),
    [
        (3, 9, 3, [3]),
        (1, 9, 3, [1, 3]),
        (1, 10, 3, [1, 3, 9]),
        (9, 9, 3, []),
        (2, 20, 2, [2, 4, 8, 16]),
    ],
)
def test_milestones_lie_below_the_last_epoch(grace, epochs, factor, expected):
    assert milestones(grace, epochs, factor) == expected


def test_the_first_trial_at_a_rung_always_goes_on():
    assert AshaRungs(2, 9, 3).admits("a", 2, -math.inf)


def test_brackets_are_judged_apart():
    rungs = AshaRungs(1, 9, 3)
    assert rungs.admits("a", 1, 0.9, "freeze=none")
    assert rungs.admits("b", 1, 0.1, "freeze=all")
    assert not rungs.admits("c", 1, 0.5, "freeze=none")
    assert rungs.admits("d", 1, 0.5, "freeze=all")
    assert rungs.describe() == [
        "rung at epoch 1 of freeze=all: 2 trials",
        "rung at epoch 1 of freeze=none: 2 trials",
    ]
