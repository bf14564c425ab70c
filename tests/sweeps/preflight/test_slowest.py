"""The configuration that is measured is the one with the least frozen, in every family's levels."""

from __future__ import annotations

import pytest

from sweeps.config.recipe import Recipe
from sweeps.config.space import Choice
from sweeps.preflight.choices.measured_choices import slowest_of
from tests.support.small_config import config_with

VIT = {"kind": "vit", "name": "test_vit", "weights": "none"}


@pytest.mark.parametrize(
    ("encoder", "levels", "least"),
    [
        ({"name": "resnet18", "weights": "none"}, ["all", "stage2", "stem"], "stem"),
        (VIT, ["all", "stage3", "block2", "stage1"], "stage1"),  # one of six blocks
        (VIT, ["all", "stage2", "block2"], "block2"),
        ({"name": "resnet18", "weights": "none"}, ["block2", "all", "stage3"], "stage3"),
    ],
)
def test_the_least_frozen_level_is_measured(encoder, levels, least):
    base = config_with(encoder=encoder)
    recipe = Recipe(name="levels", base=base, space={"encoder.freeze": Choice(values=levels)})
    assert slowest_of(recipe).encoder.freeze == least
