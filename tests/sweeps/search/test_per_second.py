"""Proposals by expected improvement a second."""

from __future__ import annotations

import itertools

import numpy as np
import optuna
import pytest

from sweeps.config.loading import load_recipe
from sweeps.config.search import Tpe
from sweeps.config.space import Choice, LogUniform
from sweeps.search.controller import SweepController
from sweeps.search.per_second import Known, drafts, most_per_second
from sweeps.state.ledger import Ledger
from tests.support.pretend_curves import score_of

SPACE = {
    "encoder.name": Choice(values=("small", "large")),
    "optimizer.lr": LogUniform(low=1e-4, high=1e-2),
}
LRS = np.geomspace(1e-4, 1e-2, 8)


def known(gain=0.0, dearer=20.0):
    """Trials of both encoders at the same rates; the large one scores `gain` more."""
    small = [Known({"encoder.name": "small", "optimizer.lr": lr}, 0.5, 1.0) for lr in LRS]
    large = [Known({"encoder.name": "large", "optimizer.lr": lr}, 0.5 + gain, dearer) for lr in LRS]
    return [*small, *large]


PROPOSALS = [
    {"encoder.name": name, "optimizer.lr": 1e-3} for name in ("large", "small", "large", "small")
]


def test_of_equal_scores_the_cheap_one_is_taken():
    assert most_per_second(PROPOSALS, SPACE, known(), left=1.0)["encoder.name"] == "small"


def test_at_the_end_of_the_budget_the_score_alone_counts():
    found = most_per_second(PROPOSALS, SPACE, known(gain=0.2), left=0.0)
    assert found["encoder.name"] == "large"


def test_with_too_few_trials_the_first_proposal_is_taken():
    assert most_per_second(PROPOSALS, SPACE, known()[:3], left=1.0) is PROPOSALS[0]


def test_drafts_leave_the_study_as_it_is():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial({"encoder.name": "large", "optimizer.lr": 1e-3})
    study.tell(study.ask({path: _distribution(path) for path in SPACE}), 0.5)
    before = [(trial.state, trial.params) for trial in study.trials]
    samplers = [Tpe(startup_trials=1).build(seed, 1, list(SPACE)) for seed in range(4)]
    found = drafts(study, samplers, SPACE, {})
    assert len({values["optimizer.lr"] for values in found}) == 4
    assert [(trial.state, trial.params) for trial in study.trials] == before


def _distribution(path):
    return {
        "encoder.name": optuna.distributions.CategoricalDistribution(("small", "large")),
        "optimizer.lr": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
    }[path]


@pytest.fixture(scope="module")
def recipe():
    changes = {"budget.trials": 14, "search.cost_aware": True, "asha.enabled": False}
    return load_recipe("quickstart", changes)


def play(controller):
    """The rest of the sweep, its trials one after the other; each event takes a second."""
    while (trial := controller.propose()) is not None:
        controller.trial_started(trial.id)
        for epoch in range(trial.epoch + 1, controller.epochs + 1):
            metrics = {"epoch": epoch, "val/miou": score_of(trial.values, epoch)}
            controller.epoch_finished(trial.id, metrics)
        controller.trial_ended(trial.id, "completed")


@pytest.mark.parametrize("ended", [9, 12])
def test_a_sweep_is_the_same_wherever_its_ledger_is_cut(recipe, tmp_path, monkeypatch, ended):
    seconds = itertools.count()
    monkeypatch.setattr("sweeps.state.ledger.now_s", lambda: float(next(seconds)))
    whole = SweepController(recipe, 0, Ledger(tmp_path / "whole.jsonl"), [])
    play(whole)
    whole.ledger.close()
    proposed = [event["values"] for event in whole.ledger.of("trial")]
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    ends = [number for number, line in enumerate(lines) if b'"event": "end"' in line]
    (tmp_path / "cut.jsonl").write_bytes(b"".join(lines[: ends[ended - 1] + 1]))
    again = SweepController(recipe, 0, Ledger(tmp_path / "cut.jsonl"), [])
    play(again)
    assert [event["values"] for event in again.ledger.of("trial")] == proposed
    plain = recipe.model_copy(update={"search": Tpe()})
    other = SweepController(plain, 0, Ledger(tmp_path / "plain.jsonl"), [])
    play(other)
    assert [event["values"] for event in other.ledger.of("trial")] != proposed
