"""A search with several objectives: proposals, stopping, the front, replay; without Ray."""

from __future__ import annotations

import pytest
from optuna.trial import TrialState

from sweeps.config.loading import load_recipe
from sweeps.search.asha import AshaRungs
from sweeps.search.controller import SweepController
from sweeps.search.warm_start import known_trials
from sweeps.state.ledger import Ledger
from sweeps.state.stop_reason import StopReason
from tests.support.pretend_curves import score_of

GOALS = {"objective": ["val/miou", "latency_ms", "parameters"]}


def figures(values):
    """A model's latency and size, which the simulated score does not depend on."""
    slow = values.get("encoder.freeze", "none") == "none"
    return {"time/latency_ms": 20.0 if slow else 10.0, "model/parameters": 2e6 + slow}


def play(controller, until=10**6):
    """Run the sweep with one simulated worker; stop after `until` epochs."""
    done = 0
    while (trial := controller.propose()) is not None:
        for epoch in range(trial.epoch + 1, controller.epochs + 1):
            metrics = {"epoch": epoch, "val/miou": score_of(trial.values, epoch)}
            if epoch == 1:
                metrics |= figures(trial.values)
            goes_on = controller.epoch_finished(trial.id, metrics)
            done += 1
            if done == until:
                return
            if not goes_on:
                controller.trial_ended(trial.id, "completed")
                break


@pytest.fixture
def sweep(tmp_path):
    made = []

    def make(changes=GOALS, seed=0, path=None, trials=12):
        recipe = load_recipe("quickstart", {"budget.trials": trials, **changes})
        ledger = Ledger(path or tmp_path / f"{len(made)}.jsonl")
        made.append(SweepController(recipe, seed, ledger))
        return made[-1]

    return make


def test_optuna_learns_every_objective_in_its_direction(sweep):
    controller = sweep()
    play(controller)
    assert [d.name for d in controller.study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    for trial, frozen in zip(controller.trials.values(), controller.study.trials, strict=True):
        own = figures(trial.values)
        assert frozen.state == TrialState.COMPLETE
        assert frozen.values == [trial.progress.best, *own.values()]
        missing = controller.epochs - trial.epoch
        assert frozen.constraints == ({"missing_epochs": missing} if missing else {})
        assert bool(missing) == (trial.stop_reason is StopReason.ASHA)


def test_the_front_is_optunas(sweep):
    controller = sweep()
    play(controller)
    ours = {int(trial.id) for trial in controller.progress.front}
    assert ours == {trial.number for trial in controller.study.best_trials}


def test_with_one_objective_there_is_no_front(sweep):
    controller = sweep({})
    play(controller)
    assert controller.progress.front == []
    assert len(controller.progress.kept(3)) == 3


def test_the_front_keeps_its_models_beside_the_best(sweep):
    controller = sweep()
    play(controller)
    kept, best = controller.progress.kept(1), controller.progress.ranking[0]
    assert kept[0] is best
    assert {trial.id for trial in kept} == {best.id} | {t.id for t in controller.progress.front}


@pytest.mark.parametrize("cut", [1, 7, 20, 41])
def test_a_sweep_that_was_cut_ends_as_its_twin(sweep, tmp_path, cut):
    whole, first = sweep(), sweep(path=tmp_path / "cut.jsonl")
    play(whole)
    play(first, until=cut)
    first.ledger.close()
    again = sweep(path=tmp_path / "cut.jsonl")
    play(again)
    assert [t.values for t in again.trials.values()] == [t.values for t in whole.trials.values()]
    assert [t.stop_reason for t in again.trials.values()] == [
        t.stop_reason for t in whole.trials.values()
    ]
    told = [[(t.state, t.params, t.values) for t in c.study.trials] for c in (again, whole)]
    assert told[0] == told[1]


def test_a_trial_on_its_rungs_front_continues(sweep):
    goals = sweep().goals
    rungs = AshaRungs(1, 9, 3, goals)
    assert rungs.admits("large", 1, 0.9, others=(50.0, 9.0))
    assert not rungs.admits("worse", 1, 0.5, others=(50.0, 9.0))
    assert rungs.admits("small", 1, 0.5, others=(10.0, 9.0))
    assert not rungs.admits("small, worse", 1, 0.4, others=(10.0, 9.0))
    assert not rungs.admits("unknown", 1, 0.4, others=(float("nan"), 1.0))
    alone = AshaRungs(1, 9, 3)
    assert alone.admits("large", 1, 0.9)
    assert not alone.admits("small", 1, 0.5)


def test_the_time_of_a_trial_can_be_an_objective(sweep):
    controller = sweep({"objective": ["val/miou", "cost/device_s"]}, trials=4)
    play(controller)
    for trial, frozen in zip(controller.trials.values(), controller.study.trials, strict=True):
        assert frozen.values == [trial.progress.best, trial.progress.wall_s()]


def test_another_score_decides_the_best_epoch_and_what_stops(sweep):
    controller = sweep({"objective": "val/iou/brain", "asha.enabled": False}, trials=1)
    trial = controller.propose()
    for epoch, iou in enumerate((0.3, 0.6, 0.5), start=1):
        metrics = {"epoch": epoch, "val/miou": epoch / 10, "val/iou/brain": iou}
        assert controller.epoch_finished(trial.id, metrics)
    assert trial.progress.best_metrics == {"best/val/iou/brain": 0.6, "best/epoch": 2}
    nan = {"epoch": 4, "val/miou": 0.9, "val/iou/brain": float("nan")}
    assert not controller.epoch_finished(trial.id, nan)
    assert trial.decision is StopReason.NAN


def test_a_second_score_is_that_of_the_first_ones_best_epoch(sweep):
    controller = sweep({"objective": ["val/miou", "val/dice"], "asha.enabled": False}, trials=1)
    trial = controller.propose()
    for epoch, (miou, dice) in enumerate([(0.3, 0.9), (0.5, 0.6), (0.4, 0.8)], start=1):
        controller.epoch_finished(trial.id, {"epoch": epoch, "val/miou": miou, "val/dice": dice})
    assert trial.progress.point == (0.5, 0.6)


def test_a_warm_start_knows_all_objectives(sweep):
    other = sweep({})
    play(other)  # with latency and size in its ledger, as every sweep
    known = list(known_trials(sweep().recipe, other.ledger))
    controller = sweep()
    for fields in known:
        controller.ledger.append("known", **fields)
    controller.ledger.close()
    warm = sweep(path=controller.ledger.path)
    ended = [t for t in other.trials.values() if t.stop_reason]
    learnt = warm.study.get_trials(states=[TrialState.COMPLETE])
    assert [t.values for t in learnt] == [
        [t.progress.best, *figures(t.values).values()] for t in ended
    ]
    assert warm.propose() is not None


def test_a_trial_without_an_objectives_value_teaches_nothing(sweep):
    controller = sweep(trials=1)
    trial = controller.propose()
    for epoch in range(1, controller.epochs + 1):
        controller.epoch_finished(trial.id, {"epoch": epoch, "val/miou": 0.5})
    controller.trial_ended(trial.id, "completed")
    assert controller.study.trials[0].state == TrialState.FAIL
    assert controller.progress.front == []
