"""What a final training is asked for, and the settings that follow from the trial's."""

from __future__ import annotations

import math

import pytest

from sweeps.config.budget import Asha
from sweeps.config.recipe import Recipe
from sweeps.config.space import Choice
from sweeps.promotion.final_training.settings import (
    FinalRequest,
    final_recipe,
    lengthened,
    on_val_too,
)
from tests.support.small_config import config_with
from unetexp.component import decode
from unetexp.errors import ConfigError
from unetexp.training.loop import freeze_level


def test_a_plain_config_changes_in_its_epochs_alone():
    config = config_with(epochs=4)
    assert lengthened(config, 20) == config_with(epochs=20)
    assert lengthened(config, 4) == config


@pytest.mark.parametrize("epochs", [1, 7, 50])
def test_the_frozen_share_of_the_epochs_stays(epochs):
    config = config_with(epochs=10, **{"encoder.freeze": "all", "encoder.thaw_epoch": 6})
    long = lengthened(config, epochs)
    frozen = sum(freeze_level(long, epoch + 1) == "all" for epoch in range(epochs))
    assert frozen == pytest.approx(epochs / 2, abs=0.5)


def test_an_encoder_that_never_thaws_stays_frozen():
    config = config_with(**{"encoder.freeze": "all"})
    assert lengthened(config, 20).encoder.thaw_epoch is None


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule.kind": "cosine"},
        {"schedule.kind": "poly", "schedule.warmup_epochs": 2.5},
        {"schedule.kind": "constant", "schedule.warmup": 0.3},
        {"schedule.kind": "cosine", "schedule.warmup_epochs": 3, "schedule.hold": 0.0},
    ],
)
@pytest.mark.parametrize("epochs", [2, 35])
def test_the_schedule_keeps_its_shape(changes, epochs):
    config = config_with(epochs=10, **changes)
    long = lengthened(config, epochs)
    for share in (0.0, 0.1, 0.25, 0.5, 0.9, 1.0):
        before = config.schedule.lr(1.0, share * 10, 10)
        after = long.schedule.lr(1.0, share * epochs, epochs)
        assert after == pytest.approx(before, abs=1e-9)


def test_torchs_annealing_keeps_its_share_of_the_epochs():
    config = config_with(epochs=10, **{"schedule.kind": "cosine_annealing", "schedule.t_max": 20})
    assert lengthened(config, 50).schedule.t_max == 100
    assert math.isclose(lengthened(config, 50).schedule.lr(1.0, 25, 50), (1 + 0.5**0.5) / 2)


def test_more_epochs_than_a_run_may_have():
    with pytest.raises(ConfigError, match="epochs"):
        lengthened(config_with(), 100_001)


def test_steps_of_an_epoch_stay():
    config = config_with(min_steps=30)
    assert lengthened(config, 20).steps_per_epoch(8) == 30


def recipe_with(**changes):
    tree = {
        "name": "small",
        "base": config_with(epochs=3).tree(),
        "space": {
            "encoder.freeze": {"kind": "choice", "values": ["none", "stem"]},
            "optimizer.lr": {"kind": "loguniform", "low": 1e-4, "high": 1e-2},
        },
        "points": [{"encoder.freeze": "stem"}],
        "budget": {"trials": 40, "time": "1h", "keep_models": 2, "max_concurrent": 3},
        "asha": {"bracket_by": "encoder.freeze"},
    }
    return decode(Recipe, {**tree, **changes})


def test_a_final_sweep_trains_the_settings_once_with_each_seed():
    config = config_with(epochs=15, **{"optimizer.lr": 2e-3})
    found = final_recipe(recipe_with(), config, (4, 9), "why")
    assert found.space == {"seed": Choice(values=(4, 9))}
    trained = [found.config(point) for point in found.points]
    assert trained == [config.model_copy(update={"seed": seed}) for seed in (4, 9)]
    assert (found.budget.trials, found.budget.time, found.budget.kept_models) == (2, None, 2)
    assert found.budget.max_concurrent == 3
    assert found.asha == Asha(enabled=False)


def test_of_several_objectives_the_first_decides():
    recipe = recipe_with(objective=["val/dice", "latency_ms"])
    found = final_recipe(recipe, config_with(), (1,), "")
    assert found.goals.describe() == "val/dice (max)"


def test_of_several_encoders_the_trials_weights_are_taken():
    recipe = recipe_with(weights={"resnet18": "auto"})
    assert final_recipe(recipe, config_with(), (1,), "").config({}).encoder.weights == "none"


def test_with_val_the_last_epoch_is_kept():
    found = final_recipe(recipe_with(), on_val_too(config_with()), (1,), "")
    assert found.goals.keeps_last
    assert not final_recipe(recipe_with(), config_with(), (1,), "").goals.keeps_last


def test_what_is_asked_for_is_a_command_again():
    asked = FinalRequest(epochs=9, seeds=3, with_val=True, soup=True)
    assert asked.arguments() == [
        "--train-final",
        *("--epochs", "9"),
        *("--seeds", "3"),
        "--with-val",
        "--soup",
    ]


@pytest.mark.parametrize("kind", ["ensemble", "soup"])
def test_one_seed_is_not_averaged(kind):
    with pytest.raises(ConfigError, match=f"--{kind} averages the models of several seeds"):
        FinalRequest(seeds=1, **{kind: True}).require_sound()
    FinalRequest(seeds=2, **{kind: True}).require_sound()
