"""The controller without Ray: proposals, stopping, stop reasons, and what Optuna is told."""

from __future__ import annotations

import math

import pytest
from optuna.trial import TrialState

from sweeps.config.loading import load_recipe
from sweeps.search.controller import SweepController
from sweeps.state.ledger import Ledger
from tests.support.pretend_curves import play


@pytest.fixture
def controller(tmp_path):
    made = []

    def make(seed=0, **changes):
        recipe = load_recipe("quickstart", changes)
        events = []
        ledger = Ledger(tmp_path / f"ledger-{len(made)}.jsonl")
        made.append(SweepController(recipe, seed, ledger, [events.append]))
        made[-1].seen = events
        return made[-1]

    return make


def test_one_seed_proposes_the_same_trials(controller):
    first, second, other = controller(), controller(), controller(seed=1)
    for each in (first, second, other):
        play(each)
    assert [t.values for t in first.trials.values()] == [t.values for t in second.trials.values()]
    assert [t.values for t in first.trials.values()] != [t.values for t in other.trials.values()]


def test_the_first_points_come_first(controller):
    sweep = controller()
    assert sweep.propose().values == dict(sweep.recipe.points[0])


def test_proposals_end_with_the_budget(controller):
    sweep = controller(**{"budget.trials": 3})
    play(sweep)
    assert len(sweep.trials) == 3
    assert sweep.propose() is None


def test_a_stopped_trial_reaches_optuna_as_pruned_and_a_full_one_as_complete(controller):
    sweep = controller(**{"budget.trials": 12})
    play(sweep)
    reasons = {trial.stop_reason for trial in sweep.trials.values()}
    assert reasons == {"completed", "asha"}
    for trial, frozen in zip(sweep.trials.values(), sweep.study.trials, strict=True):
        expected = {"completed": TrialState.COMPLETE, "asha": TrialState.PRUNED}
        assert frozen.state == expected[trial.stop_reason]
        assert len(frozen.intermediate_values) == trial.epoch


def test_no_trial_stops_within_its_grace(controller):
    sweep = controller(**{"budget.trials": 12, "asha.grace_epochs": 4})
    play(sweep)
    assert min(trial.epoch for trial in sweep.trials.values()) >= 4


def test_a_repeated_epoch_changes_nothing(controller):
    sweep = controller()
    trial = sweep.propose()
    sweep.epoch_finished(trial.id, {"epoch": 1, "val/miou": 0.5})
    before = list(sweep.seen)
    assert sweep.epoch_finished(trial.id, {"epoch": 1, "val/miou": 0.9})
    assert sweep.seen == before
    assert trial.progress.best == 0.5


@pytest.mark.parametrize("reason", ["nan", "oom", "error", "crash"])
def test_a_failed_trial_is_told_as_failed_and_the_sweep_goes_on(controller, reason):
    sweep = controller()
    trial = sweep.propose()
    sweep.trial_ended(trial.id, reason, "what happened")
    assert sweep.study.trials[0].state == TrialState.FAIL
    assert sweep.seen[-1] | {"at": 0} == {
        "event": "end",
        "trial": trial.id,
        "reason": reason,
        "error": "what happened",
        "epoch": 0,
        "at": 0,
    }
    assert sweep.propose() is not None


def test_a_score_that_is_not_finite_ends_the_trial(controller):
    sweep = controller()
    trial = sweep.propose()
    assert not sweep.epoch_finished(trial.id, {"epoch": 1, "val/miou": math.nan})
    sweep.trial_ended(trial.id, "completed")
    assert trial.stop_reason == "nan"


def test_a_spent_time_budget_proposes_nothing(controller):
    sweep = controller(**{"budget.time": "0.001s"})
    assert sweep.propose() is None or sweep.halted


def test_a_bracket_compares_trials_of_one_choice_only(controller):
    sweep = controller(**{"budget.trials": 20, "asha.bracket_by": "encoder.freeze"})
    play(sweep)
    levels = {trial.values["encoder.freeze"] for trial in sweep.trials.values()}
    assert {bracket for bracket, _ in sweep.rungs.scores} == {f"encoder.freeze={x}" for x in levels}
    for level in levels:  # the first of each has nobody to be compared with
        first = next(t for t in sweep.trials.values() if t.values["encoder.freeze"] == level)
        assert first.stop_reason == "completed"


@pytest.mark.parametrize(("judged", "goes_on"), [("best", True), ("last", False)])
def test_one_bad_epoch_at_a_rung_stops_nobody_who_was_good_before(controller, judged, goes_on):
    sweep = controller(**{"asha.judged": judged, "asha.grace_epochs": 3})
    steady, falling = sweep.propose(), sweep.propose()
    for epoch, score in enumerate([0.3, 0.4, 0.5], start=1):
        assert sweep.epoch_finished(steady.id, {"epoch": epoch, "val/miou": score})
    for epoch, score in enumerate([0.3, 0.6], start=1):
        assert sweep.epoch_finished(falling.id, {"epoch": epoch, "val/miou": score})
    assert sweep.epoch_finished(falling.id, {"epoch": 3, "val/miou": 0.1}) is goes_on
