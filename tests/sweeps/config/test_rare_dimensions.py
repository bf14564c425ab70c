"""What is for rare classes, and the augmentation preset, can be searched like any other setting."""

from __future__ import annotations

import optuna
import pytest
import yaml

from sweeps.config.loading import RECIPES, load_recipe
from sweeps.config.space import suggest
from unetexp.training.augmenting.presets import PRESETS

RULES = ["none", "balanced", "median_frequency", "effective_number"]
SPACE = {
    "loss.kind": {"kind": "choice", "values": ["dice_ce", "focal", "dice"]},
    "loss.class_weights": {
        "kind": "choice",
        "values": RULES,
        "when": {"loss.kind": ["dice_ce", "focal"]},
    },
    "loss.class_weights_beta": {
        "kind": "choice",
        "values": [0.9999, 0.999999],
        "when": {"loss.class_weights": "effective_number"},
    },
    "sampler.kind": {"kind": "choice", "values": ["uniform", "rare_classes"]},
    "sampler.power": {
        "kind": "choice",
        "values": [0.5, 1.0],
        "when": {"sampler.kind": "rare_classes"},
    },
    "augment.rare_crop": {"kind": "uniform", "low": 0.0, "high": 0.8},
    "augment.preset": {"kind": "choice", "values": list(PRESETS)},
}


@pytest.fixture
def recipe(tmp_path):
    tree = yaml.safe_load((RECIPES / "quickstart.yaml").read_text())
    tree["base"]["augment"] = {"crop_px": 64, "rotation_deg": 3}
    tree |= {"space": SPACE, "points": []}
    path = tmp_path / "rare.yaml"
    path.write_text(yaml.safe_dump(tree))
    return load_recipe(str(path), {})


def test_every_dimension_reaches_the_trial(recipe):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(60):
        values = suggest(recipe.space, study.ask(), recipe.fixed_values())
        config = recipe.config(values)
        seen |= {(path, value) for path, value in values.items() if isinstance(value, str)}
        assert config.augment.rare_crop == values["augment.rare_crop"]
        assert config.augment.zoom_max == PRESETS[values["augment.preset"]]["zoom_max"]
        assert (config.augment.crop_px, config.augment.rotation_deg) == (64, 3)
        assert config.sampler.kind == values["sampler.kind"]
        if "loss.class_weights" in values:
            assert config.loss.class_weights == values["loss.class_weights"]
    assert {value for path, value in seen if path == "loss.class_weights"} == set(RULES)
    assert {value for path, value in seen if path == "augment.preset"} == set(PRESETS)
