"""The initial weights of every encoder that a sweep searches, with the network as it may be."""

from __future__ import annotations

import pytest

from sweeps.config.loading import load_recipe
from sweeps.config.recipe import Recipe
from sweeps.driver.encoder_weights import settle_weights
from unetexp.component import decode
from unetexp.errors import WeightsUnavailableError
from unetexp.models.weights import imagenet

LITE0 = "tf_efficientnet_lite0"
LR = {"optimizer.lr": {"kind": "loguniform", "low": 1e-4, "high": 1e-2}}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def unavailable(name):
        raise WeightsUnavailableError(f"{name} cannot be had")

    monkeypatch.setattr(imagenet, "find_imagenet", unavailable)
    monkeypatch.setattr(imagenet, "fetch_imagenet", unavailable)


def recipe_with(encoder, space=LR, **fields) -> Recipe:
    base = {"encoder": encoder, "epochs": 2}
    recipe: Recipe = decode(Recipe, {"name": "r", "base": base, "space": space, **fields})
    return recipe


def test_each_encoder_has_its_own():
    recipe = load_recipe("quickstart", {})
    settled = settle_weights(recipe, {}, 3)
    assert settled.weights == {"resnet/resnet50": "none", f"timm/{LITE0}": "packaged"}
    assert list(settled.added) == ["encoder.freeze"]
    found = settled.apply(recipe)
    assert found.space["encoder.freeze"].when == {"encoder.kind": ["timm"]}
    lite0 = found.config({"encoder.kind": "timm"}).encoder
    assert (lite0.name, lite0.weights) == (LITE0, "packaged")
    resnet = found.config({"encoder.kind": "resnet"}).encoder
    assert (resnet.name, resnet.weights) == ("resnet50", "none")
    assert any("resnet50" in w and "RANDOM" in w for w in settled.warnings)
    assert not any(LITE0 in w and "RANDOM" in w for w in settled.warnings)


def test_the_packaged_encoder_joins_a_search_that_has_no_weights():
    recipe = recipe_with({"name": "resnet50", "weights": "auto"})
    settled = settle_weights(recipe, {}, 3)
    found = settled.apply(recipe)
    assert found.space["encoder.kind"].samples() == ["resnet", "timm"]
    assert found.config({"encoder.kind": "timm"}).encoder.weights == "packaged"
    assert found.config({}).encoder.weights == "none"
    assert any("The search includes encoder.kind" in warning for warning in settled.warnings)


def test_then_the_packaged_encoder_alone_is_frozen():
    freeze = {"kind": "choice", "values": ["none", "all"]}
    recipe = recipe_with({"weights": "auto"}, {**LR, "encoder.freeze": freeze})
    settled = settle_weights(recipe, {}, 3)
    assert settled.apply(recipe).space["encoder.freeze"].when == {"encoder.kind": ["timm"]}
    assert not any("learns nothing" in warning for warning in settled.warnings)


@pytest.mark.parametrize(
    ("encoder", "fixed", "space"),
    [
        ({"weights": "none"}, {}, LR),  # random weights are wanted
        ({"weights": "auto"}, {"encoder.name": "resnet18"}, LR),  # one encoder is wanted
        ({"weights": "auto"}, {"encoder.kind": "resnet"}, LR),
        ({"weights": "auto"}, {}, {}),  # nothing is searched
        ({"weights": "auto"}, {}, {"encoder.name": {"kind": "choice", "values": ["resnet18"]}}),
        ({"kind": "timm", "weights": "auto"}, {}, LR),
    ],
)
def test_it_stays_out_where_it_is_not_wanted(encoder, fixed, space):
    assert not settle_weights(recipe_with(encoder, space), fixed, 3).added


def test_weights_by_name_are_taken_before_the_common_ones(tmp_path):
    recipe = recipe_with(
        {"weights": "none"},
        {"encoder.kind": {"kind": "choice", "values": ["resnet", "timm"]}},
        weights={LITE0: "packaged"},
    )
    found = settle_weights(recipe, {}, 3).apply(recipe)
    assert found.config({"encoder.kind": "timm"}).encoder.weights == "packaged"
    assert found.config({"encoder.kind": "resnet"}).encoder.weights == "none"
    searched = found.config({"encoder.kind": "timm", "encoder.weights": "none"})
    assert searched.encoder.weights == "none"


def test_encoders_by_kind_and_name():
    space = {
        "encoder.kind": {"kind": "choice", "values": ["resnet", "timm", "vit"]},
        "encoder.name": {
            "kind": "choice",
            "values": ["resnet18", "resnet34"],
            "when": {"encoder.kind": "resnet"},
        },
    }
    names = [encoder.name for encoder in recipe_with({"weights": "none"}, space).encoders()]
    assert names == ["resnet50", "resnet18", "resnet34", LITE0, "vit_small_patch16_224"]


def test_two_families_may_share_a_name(tmp_path):
    space = {
        "encoder.kind": {"kind": "choice", "values": ["resnet", "timm"]},
        "encoder.name": {
            "kind": "choice",
            "values": ["resnet50"],
            "when": {"encoder.kind": "timm"},
        },
    }
    recipe = recipe_with({"weights": "none"}, space, weights={"timm/resnet50": "auto"})
    assert [one.full_name for one in recipe.encoders()][:2] == ["resnet/resnet50", "timm/resnet50"]
    timm = recipe.config({"encoder.kind": "timm", "encoder.name": "resnet50"}).encoder
    assert (timm.weights, recipe.config({}).encoder.weights) == ("auto", "none")


def test_weights_that_are_asked_for_and_cannot_be_had_end_the_preparation():
    recipe = recipe_with(
        {"weights": "imagenet"}, {"encoder.kind": {"kind": "choice", "values": ["resnet", "timm"]}}
    )
    with pytest.raises(WeightsUnavailableError, match="cannot be had"):
        settle_weights(recipe, {}, 3)


def test_freezing_random_weights_is_warned_about():
    freeze = {"kind": "choice", "values": ["none", "all"]}
    recipe = recipe_with({"weights": "none"}, {"encoder.freeze": freeze})
    assert any("learns nothing" in warning for warning in settle_weights(recipe, {}, 3).warnings)
