"""A sweep whose space changes on the way: what earlier trials are worth, and that it resumes."""

from __future__ import annotations

import json
import math

import pytest
import yaml
from optuna.trial import TrialState

from sweeps.config.loading import load_recipe
from sweeps.driver.growth import growth_of
from sweeps.search.controller import SweepController
from sweeps.search.evidence import in_space
from sweeps.state.ledger import Ledger, rewrite
from tests.support.pretend_curves import play, score_of

LR, KIND, GAMMA, FREEZE = "optimizer.lr", "loss.kind", "loss.gamma", "encoder.freeze"
NARROW = {
    FREEZE: {"kind": "choice", "values": ["none", "stem"]},
    KIND: {"kind": "choice", "values": ["cross_entropy", "dice"]},
    LR: {"kind": "loguniform", "low": 1e-3, "high": 1e-2},
}
WIDE = {
    FREEZE: {"kind": "choice", "values": ["none", "stem", "all"]},
    KIND: {"kind": "choice", "values": ["cross_entropy", "dice", "focal"]},
    GAMMA: {"kind": "uniform", "low": 1, "high": 3, "when": {KIND: "focal"}},
    LR: {"kind": "loguniform", "low": 1e-5, "high": 1e-1},
    "decoder.upsampling": {"kind": "choice", "values": ["conv_transpose", "nearest"]},
}


@pytest.fixture
def recipe(tmp_path):
    def load(space, **tree):
        path = tmp_path / "recipe.yaml"
        base = {"encoder": {"weights": "none"}, "epochs": 9}
        path.write_text(yaml.safe_dump({"base": base, "space": space, **tree}))
        return load_recipe(str(path), {})

    return load


def events_of(path):
    return Ledger(path, write=False).events


def grow(path, before, after):
    """Write the growth as the driver does, and resume with the new recipe."""
    growth = growth_of(before, after, events_of(path), after.points)
    ledger = Ledger(path)
    ledger.append("grown", **growth.record())
    return growth, SweepController(after, 0, ledger)


def proposals(controller):
    return [dict(trial.values) for trial in controller.trials.values()]


@pytest.mark.parametrize("kind", ["tpe", "random", "qmc", "gp"])
def test_earlier_trials_stay_evidence_and_a_resume_changes_nothing(recipe, tmp_path, kind):
    search = {"kind": kind}
    before = recipe(NARROW, search=search, budget={"trials": 6})
    after = recipe(WIDE, search=search, budget={"trials": 12})
    path = tmp_path / "ledger.jsonl"
    play(SweepController(before, 0, Ledger(path)))
    growth, grown = grow(path, before, after)
    assert (growth.earlier, growth.evidence) == (6, 6)
    told = grown.study.trials[:6]
    assert all(trial.params["decoder.upsampling"] == "conv_transpose" for trial in told)
    assert {trial.state for trial in told} <= {TrialState.COMPLETE, TrialState.PRUNED}
    play(grown)
    assert len(grown.trials) == 12
    new = proposals(grown)[6:]
    assert all("decoder.upsampling" in values for values in new)

    cut = next(i for i, e in enumerate(events_of(path)) if e.get("trial") == "0008")
    killed = tmp_path / "killed.jsonl"
    rewrite(killed, events_of(path)[: cut + 2])  # while trial 8 runs
    resumed = SweepController(after, 0, Ledger(killed))
    play(resumed)
    assert proposals(resumed) == proposals(grown)


def test_trials_outside_a_narrowed_range_stay_in_the_table_and_leave_the_search(recipe, tmp_path):
    before = recipe(WIDE, budget={"trials": 12})
    narrow = {**NARROW, "decoder.upsampling": {"kind": "choice", "values": ["conv_transpose"]}}
    after = recipe(narrow, budget={"trials": 20})
    path = tmp_path / "ledger.jsonl"
    first = SweepController(before, 0, Ledger(path))
    play(first)
    growth, grown = grow(path, before, after)
    inside = [values for values in proposals(first) if in_space(after, values) is not None]
    assert growth.evidence == len(inside) < 12
    assert "lie outside the new space" in growth.describe()[-1]
    assert len(grown.trials) == 12
    states = [trial.state for trial in grown.study.trials]
    assert states.count(TrialState.FAIL) == 12 - len(inside)
    scores = [trial.progress.best for trial in first.trials.values()]
    assert [trial.progress.best for trial in grown.trials.values()] == scores
    play(grown)
    assert all(in_space(after, values) is not None for values in proposals(grown)[12:])


def test_a_running_trial_outside_goes_on_to_its_end(recipe, tmp_path):
    before, after = recipe(WIDE), recipe(NARROW)
    path = tmp_path / "ledger.jsonl"
    first = SweepController(before, 0, Ledger(path))
    while in_space(after, (trial := first.propose()).values) is not None:
        first.trial_ended(trial.id, "crash")
    first.epoch_finished(trial.id, {"epoch": 1, "val/miou": 0.4})
    _, grown = grow(path, before, after)
    again = grown.propose()
    assert (again.id, again.config) == (trial.id, trial.config)
    for epoch in range(2, 10):
        grown.epoch_finished(again.id, {"epoch": epoch, "val/miou": 0.5})
    grown.trial_ended(again.id, "completed")
    assert again.stop_reason in ("completed", "asha")
    assert grown.study.trials[int(again.id)].state == TrialState.FAIL
    assert grown.propose().id != again.id


def test_points_that_were_waiting_and_new_ones_are_tried_next(recipe, tmp_path):
    points = [{KIND: "dice"}, {KIND: "cross_entropy"}, {LR: 0.01}]
    before = recipe(NARROW, points=points, budget={"trials": 9})
    after = recipe(WIDE, points=[*points, {KIND: "focal"}], budget={"trials": 9})
    path = tmp_path / "ledger.jsonl"
    first = SweepController(before, 0, Ledger(path))
    first.trial_ended(first.propose().id, "crash")
    _, grown = grow(path, before, after)
    tried = [grown.propose().values for _ in range(4)]
    assert tried[0][KIND] == "cross_entropy"
    assert tried[1][LR] == 0.01
    assert tried[2][KIND] == "focal"
    assert json.dumps(tried[3])  # and then what the search proposes


def test_an_experiment_is_found_in_a_space_where_it_is_written_in_another_way(recipe):
    after = recipe(WIDE)
    wide = {FREEZE: "stem", KIND: "focal", LR: 1e-3}
    assert in_space(after, wide)[GAMMA] == 2.0  # the loss's own default, with which it trained
    assert in_space(after, {**wide, GAMMA: 2.5})[GAMMA] == 2.5
    assert in_space(after, {**wide, "decoder.attention": "scse"}) is None  # no longer searched
    assert in_space(after, {**wide, LR: 0.2}) is None
    assert in_space(after, {**wide, KIND: "lovasz"}) is None


@pytest.mark.parametrize("seed", range(3))
def test_a_grown_sweep_is_no_worse_than_a_fresh_start_on_what_was_left(recipe, tmp_path, seed):
    """The optimum, focal loss at a rate of 1e-3, is outside of the narrow space."""
    narrow = {**NARROW, LR: {"kind": "loguniform", "low": 3e-3, "high": 1e-2}}
    before, after = recipe(narrow, budget={"trials": 10}), recipe(WIDE, budget={"trials": 30})
    path = tmp_path / "ledger.jsonl"
    play(SweepController(before, seed, Ledger(path)))
    _, grown = grow(path, before, after)
    play(grown)
    fresh = SweepController(
        after.model_copy(update={"budget": after.budget.model_copy(update={"trials": 20})}),
        seed,
        Ledger(tmp_path / "fresh.jsonl"),
    )
    play(fresh)
    best = [max(score_of(t.values, 9) for t in each.trials.values()) for each in (grown, fresh)]
    assert best[0] >= best[1] - 0.01
    assert math.isfinite(best[0])
