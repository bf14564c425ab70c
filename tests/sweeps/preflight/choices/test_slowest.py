"""The configuration that is measured is the one with the least frozen, in every family's levels."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sweeps.config.recipe import Recipe
from sweeps.config.space import Choice
from sweeps.preflight.choices.subjects import mean_pace, slowest_of
from tests.support.small_config import config_with
from unetexp.compute.measured import Measured, TimedStep
from unetexp.compute.settings import ComputeSettings

DATA = SimpleNamespace(num_classes=3, channels=1)
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
    assert slowest_of(recipe, DATA).encoder.freeze == least


def test_of_several_encoders_the_costliest_is_measured():
    base = config_with(encoder={"kind": "timm", "weights": "none"})
    kinds = Choice(values=("timm", "resnet"))
    levels = Choice(values=("stage1", "none"), when={"encoder.kind": "timm"})
    recipe = Recipe(
        name="kinds", base=base, space={"encoder.kind": kinds, "encoder.freeze": levels}
    )
    slowest = slowest_of(recipe, DATA)
    assert (slowest.encoder.name, slowest.encoder.freeze) == ("resnet50", "none")


def test_the_mean_pace_counts_every_encoder_alike():
    base = config_with(encoder={"name": "resnet50", "weights": "none"})
    recipe = Recipe(
        name="kinds", base=base, space={"encoder.kind": Choice(values=("resnet", "timm"))}
    )
    settings = ComputeSettings("fp32", "contiguous")

    def of(encoder, step_s, images=8):
        steps = (TimedStep(settings, 1, 1, step_s),)
        return Measured("cpu", "slim", images, 96, 1, steps, encoder=encoder)

    both = [of("resnet50", 1.0), of("tf_efficientnet_lite0", 0.25, images=4)]
    assert mean_pace(recipe, both) == pytest.approx((1 + 0.5) / 2)
    assert mean_pace(recipe, both[:1]) == 1
    assert mean_pace(recipe, []) == 1
