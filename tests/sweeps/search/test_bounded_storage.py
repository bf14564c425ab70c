"""What the search sees of a long past."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from sweeps.search.bounded_storage import BEST, LATEST, BoundedStorage

X = {"x": FloatDistribution(0.0, 1.0)}


def ended(score: float) -> optuna.trial.FrozenTrial:
    return create_trial(params={"x": score}, distributions=X, value=score)


def stopped(epoch: int, score: float) -> optuna.trial.FrozenTrial:
    return create_trial(
        state=TrialState.PRUNED,
        params={"x": score},
        distributions=X,
        intermediate_values={epoch: score},
    )


def study_of(memory: BoundedStorage, trials) -> optuna.Study:
    study = optuna.create_study(storage=memory, direction="maximize")
    study.add_trials(trials)
    return study


def numbers(study: optuna.Study, *states: TrialState) -> list[int]:
    return [trial.number for trial in study.get_trials(states=states or None)]


def test_the_latest_and_the_best_before_them_are_seen():
    scores = [0.9, 0.1, 0.8, 0.2, 0.3, 0.4, 0.5]
    study = study_of(BoundedStorage(latest=3, best=2), map(ended, scores))
    assert numbers(study) == [0, 2, 4, 5, 6]
    assert numbers(study, TrialState.COMPLETE) == [0, 2, 4, 5, 6]


def test_full_trials_are_worth_more_than_stopped_ones_and_those_more_the_longer_they_ran():
    past = [stopped(2, 0.9), stopped(3, 0.1), ended(0.2), stopped(3, 0.2), stopped(1, 0.9)]
    study = study_of(BoundedStorage(latest=1, best=3), [*past, ended(0.1)])
    assert numbers(study) == [1, 2, 3, 5]


def test_trials_that_have_not_ended_are_always_seen():
    study = study_of(BoundedStorage(latest=1, best=1), [ended(0.5)])
    study.enqueue_trial({"x": 0.25})
    running = study.ask(X)
    study.enqueue_trial({"x": 0.75})
    study.add_trials([ended(0.1), ended(0.2), ended(0.3)])
    assert numbers(study) == [0, 1, 2, 5]
    assert numbers(study, TrialState.RUNNING) == [running.number]
    assert numbers(study, TrialState.WAITING) == [2]
    assert running.params == {"x": 0.25}
    study.tell(running, 0.9)  # the latest now; trial 5 is worth less than trial 0
    assert numbers(study) == [0, 1, 2]


@pytest.mark.parametrize("trials", [1, LATEST + BEST])
def test_no_trial_of_a_shorter_sweep_is_forgotten(trials):
    study = study_of(BoundedStorage(), [ended(number / 1000) for number in range(trials)])
    assert len(numbers(study)) == trials


def test_what_is_seen_of_a_longer_one_does_not_grow():
    study = study_of(BoundedStorage(), [ended(number % 97 / 100) for number in range(1000)])
    assert len(numbers(study)) == LATEST + BEST
    assert study.best_value == 0.96


def test_proposals_are_those_of_optuna_alone_while_nothing_is_forgotten():
    values = []
    for storage in (BoundedStorage(latest=20, best=5), optuna.storages.InMemoryStorage()):
        sampler = optuna.samplers.TPESampler(seed=0)
        study = optuna.create_study(storage=storage, direction="maximize", sampler=sampler)
        study.optimize(lambda trial: -((trial.suggest_float("x", 0, 1) - 0.3) ** 2), n_trials=25)
        values.append([trial.params["x"] for trial in storage.get_all_trials(0)])
    assert values[0] == values[1]
