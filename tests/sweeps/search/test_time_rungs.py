"""Rungs in time: trials are compared after equal seconds."""

from __future__ import annotations

import pytest

from sweeps.config.loading import load_recipe
from sweeps.search.asha import AshaRungs
from sweeps.search.controller import SweepController
from sweeps.search.time_rungs import TimeRungs
from sweeps.state.ledger import Ledger
from unetexp.errors import ConfigError


def rungs(grace_s=60, grace_epochs=1, factor=3):
    return TimeRungs(grace_s, grace_epochs, 100, factor)


def test_nothing_is_compared_before_the_first_rung():
    asked = rungs()
    assert asked.admits("a", 1, 0.9, spent_s=70)
    assert asked.admits("b", 1, 0.1, spent_s=59)
    assert not asked.admits("b", 2, 0.2, spent_s=61)


def test_epochs_do_not_count_but_time_does():
    """A trial whose epochs are long is compared at the rung with one whose epochs are short."""
    asked = rungs()
    assert asked.admits("fast", 30, 0.8, spent_s=60)
    assert not asked.admits("slow", 2, 0.5, spent_s=61)


def test_a_rung_is_passed_once():
    asked = rungs()
    asked.admits("good", 1, 0.9, spent_s=61)
    asked.admits("good", 2, 0.9, spent_s=181)
    asked.admits("other", 1, 0.95, spent_s=62)
    assert asked.admits("other", 2, 0.1, spent_s=100)
    assert not asked.admits("other", 3, 0.1, spent_s=190)


def test_a_trial_that_ended_earlier_counts_with_what_it_ended_with():
    asked = rungs()
    asked.completed("quick", 0.8, "", 50)
    assert not asked.admits("slow", 1, 0.7, spent_s=61)
    assert asked.admits("better", 1, 0.85, spent_s=61)


def test_brackets_are_apart_and_the_grace_epochs_hold():
    asked = rungs(grace_epochs=3)
    asked.admits("a", 3, 0.9, "freeze=none", spent_s=61)
    assert asked.admits("b", 2, 0.1, "freeze=none", spent_s=61)
    assert asked.admits("c", 3, 0.1, "freeze=all", spent_s=61)
    assert not asked.admits("b", 3, 0.1, "freeze=none", spent_s=70)


def test_with_a_second_an_epoch_it_decides_as_rungs_in_epochs():
    """Trials one after the other, all as fast: the same decisions as ASHA in epochs."""
    scores = [0.3, 0.5, 0.2, 0.45, 0.6, 0.1, 0.55, 0.52, 0.61, 0.33]
    by_time, by_epochs = TimeRungs(3, 1, 27, 3), AshaRungs(3, 27, 3)
    for number, score in enumerate(scores):
        for epoch in range(1, 27):
            kept = [
                by_time.admits(str(number), epoch, score * epoch, spent_s=epoch),
                by_epochs.admits(str(number), epoch, score * epoch),
            ]
            assert kept[0] == kept[1], (number, epoch)
            if not kept[0]:
                break


def test_a_sweep_stops_trials_by_time(tmp_path):
    changes = {"budget.trials": 4, "asha.grace_time": "10s", "schedule.warmup": 0}
    recipe = load_recipe("quickstart", changes)
    controller = SweepController(recipe, 0, Ledger(tmp_path / "ledger.jsonl"), [])
    assert isinstance(controller.rungs, TimeRungs)
    assert controller.rungs.decisive_epochs == frozenset(range(1, recipe.base.epochs + 1))


def test_several_objectives_are_refused():
    with pytest.raises(ConfigError, match="one objective"):
        load_recipe(
            "quickstart", {"asha.grace_time": "10s", "objective": ["val/miou", "latency_ms"]}
        )
