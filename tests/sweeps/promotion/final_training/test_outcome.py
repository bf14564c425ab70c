"""What a final training says of itself, and when an ensemble or a soup is kept."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from sweeps.promotion.final_training.outcome import (
    FINAL,
    SOUP,
    TRIAL,
    Attempt,
    Contender,
    FinalRun,
    FinalTraining,
    WithVal,
    best,
)
from unetexp.metrics.bootstrap import Interval, PairedComparison


def attempt(low, high, refused="", kind="ensemble"):
    compared = PairedComparison(Interval((low + high) / 2, low, high), 0.99)
    return Attempt(kind, 3, "trial 0001", 0.84, compared, refused)


@pytest.mark.parametrize(
    ("tried", "kept", "said"),
    [
        (attempt(0.001, 0.02), True, "kept, val/miou 0.8400, +0.0105 against trial 0001"),
        (attempt(-0.001, 0.02), False, "tried and not kept"),
        (attempt(-0.03, -0.01), False, "-0.0200 against"),
        (attempt(0.001, 0.02, "it takes 90.0 ms"), False, "+0.0200), and it takes 90.0 ms"),
        (attempt(math.nan, math.nan), False, "on a single image"),
        (Attempt(SOUP, 1, "x", refused="only one training was completed"), False, "not tried"),
    ],
)
def test_an_attempt_is_kept_where_the_interval_is_above_zero(tried, kept, said):
    assert tried.kept is kept
    assert said in tried.describe("val/miou")


def test_what_is_averaged_is_said():
    assert "averaged weights" in attempt(0.1, 0.2, kind=SOUP).describe("val/miou")
    assert "averaged probabilities" in attempt(0.1, 0.2).describe("val/miou")


def contender(kind, score, title="one"):
    return Contender(kind, title, "run", Path("folder"), score, 3)


def test_the_better_on_validation_is_taken_and_of_equal_ones_the_sweeps_own():
    own, final = contender(TRIAL, 0.8), contender(FINAL, 0.8)
    assert best([own, final]) is own
    assert best([own, contender(FINAL, 0.81), final]).score == 0.81


def outcome(picked, **changes):
    told = {
        "sweep": "nuclei-final",
        "metric": "val/miou",
        "trial": "0003",
        "trial_score": 0.8,
        "trial_epochs": 10,
        "epochs": 50,
        "runs": (FinalRun(1, 0.83, 48), FinalRun(2, math.nan, 0)),
        "attempts": (),
        "picked": picked,
        "chosen": picked,
        "others": (),
    }
    return FinalTraining(**{**told, **changes})


def test_it_tells_the_trial_the_seeds_and_the_pick_apart():
    found = outcome(contender(FINAL, 0.83, "final training of trial 0003 (seed 1)"))
    assert found.is_new
    assert found.describe() == [
        "Final training of trial 0003 (sweep nuclei-final): 50 epochs instead of 10, 2 new seeds, "
        "best val/miou on validation:",
        "trial 0003 in the sweep: 0.8000",
        "seed 1: 0.8300 in epoch 48",
        "seed 2: failed",
        "Picked by validation: final training of trial 0003 (seed 1) (val/miou 0.8300).",
    ]


def test_it_says_where_it_was_of_no_use():
    found = outcome(contender(TRIAL, 0.8, "trial 0003"))
    assert not found.is_new
    assert "no better on validation" in found.verdict()


def test_with_val_nothing_was_left_to_pick_by():
    picked = contender(TRIAL, 0.8, "trial 0003")
    again = contender(FINAL, math.nan, "trial 0003, trained on train and val")
    found = outcome(picked, chosen=again, with_val=WithVal("nuclei-final-with-val", 7, (0,)))
    assert found.is_new
    said = found.verdict()
    assert "for 7 epochs, the number that validation chose for trial 0003" in said
    assert "nothing was left to pick" in said
