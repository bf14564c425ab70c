"""The ways to propose trials: each kind, its settings, and that the default is what it was."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from scipy.stats import qmc

from sweeps.config.loading import load_recipe
from sweeps.config.quasi_random import QuasiRandomSampler
from sweeps.config.search import Tpe
from sweeps.search.controller import SweepController
from sweeps.state.ledger import Ledger
from tests.support.pretend_curves import play
from unetexp.errors import ConfigError


def swept(path, recipe, seed=0):
    controller = SweepController(recipe, seed, Ledger(path))
    play(controller)
    return [dict(trial.values) for trial in controller.trials.values()]


@pytest.mark.parametrize("kind", ["tpe", "random", "qmc", "gp"])
def test_each_kind_proposes_by_the_seed_and_resumes_as_if_never_interrupted(tmp_path, kind):
    recipe = load_recipe("quickstart", {"budget.trials": 9, "search.kind": kind})
    whole = swept(tmp_path / "whole", recipe)
    assert len(whole) == 9
    assert swept(tmp_path / "other", recipe, seed=1) != whole

    short = recipe.budget.model_copy(update={"trials": 6})
    assert swept(tmp_path / "cut", recipe.model_copy(update={"budget": short})) == whole[:6]
    assert swept(tmp_path / "cut", recipe) == whole


def test_without_a_search_section_it_is_tpe_after_five_random_trials():
    search = load_recipe("quickstart", {}).search
    assert search == Tpe(startup_trials=5, multivariate=True)
    sampler = search.build(2, 3, ["optimizer.lr"])
    assert isinstance(sampler, optuna.samplers.TPESampler)


def test_settings_of_a_kind_are_set_by_their_path():
    changes = {"search.startup_trials": 12, "search.multivariate": False}
    assert load_recipe("quickstart", changes).search == Tpe(startup_trials=12, multivariate=False)
    with pytest.raises(ConfigError, match="search"):
        load_recipe("quickstart", {"search.kind": "bayes"})
    with pytest.raises(ConfigError, match="startup_trials"):
        load_recipe("quickstart", {"search.startup_trials": 0})


def test_the_sobol_points_are_those_of_scipy():
    paths = ["a", "b", "c", "d"]
    study = optuna.create_study(sampler=QuasiRandomSampler(paths, seed=5))
    drawn = []
    for _ in range(32):
        trial = study.ask()
        drawn.append(
            [
                trial.suggest_float("a", 2.0, 4.0),
                np.log10(trial.suggest_float("b", 1e-4, 1e-2, log=True)),
                trial.suggest_int("c", 1, 8),
                "xyzw".index(trial.suggest_categorical("d", list("xyzw"))),
            ]
        )
    points = qmc.Sobol(4, scramble=True, rng=5).random(32)
    expected = points * [2, 2, 8, 4] + [2, -4, 1, 0]
    expected[:, 2:] = np.floor(expected[:, 2:])
    np.testing.assert_allclose(drawn, expected, rtol=1e-9)
