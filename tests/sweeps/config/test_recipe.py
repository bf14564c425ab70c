"""Recipes: the shipped ones are whole, the user's mistakes are found before anything starts."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import yaml

from sweeps.config.budget import parse_duration
from sweeps.config.checks import check_name
from sweeps.config.loading import RECIPES, available_recipes, load_recipe
from sweeps.config.recipe import differences
from sweeps.config.space import suggest
from unetexp.errors import ConfigError, UserError

MISSION = {"encoder.freeze", "decoder.upsampling", "loss.kind", "optimizer.lr"}


@pytest.fixture
def recipe_file(tmp_path):
    def write(**parts):
        tree = yaml.safe_load((RECIPES / "quickstart.yaml").read_text())
        for key, value in parts.items():
            tree[key] = {**tree.get(key, {}), **value} if isinstance(value, dict) else value
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(tree))
        return str(path)

    return write


SHIPPED = ["article", "driving", "folder", "inspection", "lung_ct", "oxford_pet", "quickstart"]


def test_the_recipes_are_shipped():
    assert available_recipes() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_is_whole(name):
    recipe = load_recipe(name, {})
    assert set(recipe.space) >= MISSION
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for point in recipe.points:
        study.enqueue_trial(point)
    for _ in range(20):
        config = recipe.config(suggest(recipe.space, study.ask(), recipe.fixed_values()))
        assert config.data == recipe.base.data
    assert recipe.base.decoder.kind == ("classic" if name == "article" else "slim")
    assert recipe.base.encoder.weights == "auto"
    header = (RECIPES / f"{name}.yaml").read_text().split("description:")[0]
    assert "python sweeps/run.py" in header


def test_the_article_is_as_the_article_has_it():
    base = load_recipe("article", {}).base
    assert base.augment.crop_px == 512
    assert base.augment.rotation_deg == 10
    assert (base.augment.brightness, base.augment.contrast) == (0.2, 0.2)
    assert (base.optimizer.kind, base.optimizer.lr) == ("adamw", 1e-3)
    assert base.optimizer.weight_decay == 1e-4
    assert (base.schedule.kind, base.schedule.t_max) == ("cosine_annealing", 100)


def test_a_fixed_value_is_no_longer_searched():
    recipe = load_recipe("quickstart", {"encoder.freeze": "all"})
    assert "encoder.freeze" not in recipe.space
    assert recipe.base.encoder.freeze == "all"
    assert all("encoder.freeze" not in point for point in recipe.points)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("resnet18", "resnet"), ("convnext_atto", "timm"), ("vit_tiny_patch16_224", "vit")],
)
def test_fixing_an_encoder_by_its_name_fixes_its_family(name, kind):
    recipe = load_recipe("quickstart", {"encoder.name": name})
    assert not {"encoder.kind", "encoder.name"} & set(recipe.space)
    assert (recipe.base.encoder.kind, recipe.base.encoder.name) == (kind, name)
    assert "encoder.freeze" in recipe.space


def test_a_setting_of_one_kind_alone_is_fixed_for_its_trials():
    recipe = load_recipe("quickstart", {"loss.gamma": 2.5})
    assert recipe.space["loss.gamma"].when == {"loss.kind": ["focal"]}


def test_fixing_a_kind_drops_what_depends_on_another():
    recipe = load_recipe("quickstart", {"loss.kind": "dice"})
    assert "loss.kind" not in recipe.space
    assert "loss.gamma" not in recipe.space


def test_a_field_of_a_searched_kind_can_be_fixed():
    recipe = load_recipe("quickstart", {"loss.gamma": 2.5})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        values = suggest(recipe.space, study.ask(), recipe.fixed_values())
        config = recipe.config(values)
        if config.loss.kind == "focal":
            assert config.loss.gamma == 2.5


def test_a_default_that_the_recipe_does_not_name_can_be_changed(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text("space: {optimizer.lr: {kind: loguniform, low: 1e-4, high: 1e-2}}")
    recipe = load_recipe(str(path), {"optimizer.weight_decay": 0.5, "loss.label_smoothing": 0.1})
    assert recipe.base.optimizer.weight_decay == 0.5
    assert recipe.base.loss.label_smoothing == 0.1


def test_data_swaps_the_recipes_data(tmp_path):
    recipe = load_recipe("quickstart", {}, str(tmp_path))
    assert (recipe.base.data.kind, recipe.base.data.root) == ("folder", str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder.freze": "all"}, "Did you mean 'freeze'"),
        ({"encoder.freeze": "al"}, "Did you mean 'all'"),
        ({"loss.kind": "dise"}, "Did you mean 'dice'"),
        ({"optimizer.lr": -1}, "greater than 0"),
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"budget.trails": 3}, "Did you mean 'trials'"),
        ({"budget.gpus_per_trial": 1.5}, "whole number"),
        ({"budget.race": True}, "a race needs two trials or more"),
        ({"asha.grace_epochs": 99}, "more than all"),
        ({"augment.crop_px.x": 1}, "without settings"),
    ],
)
def test_a_bad_change_is_a_mistake_that_names_it(changes, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe("quickstart", changes)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"spaces": {}}, "Did you mean 'space'"),
        (
            {"space": {"loss.gama": {"kind": "uniform", "low": 1, "high": 2}}},
            "Did you mean 'gamma'",
        ),
        ({"space": {"encoder.freeze": {"kind": "choice", "values": ["no"]}}}, "is not a choice"),
        ({"space": {"optimizer.lr": {"kind": "uniform", "low": -1, "high": 1}}}, "greater than 0"),
        ({"points": [{"encoder.freeze": "everything"}]}, "is not one of"),
        ({"points": [{"encoder.name": "resnet18"}]}, "is not a choice"),
        ({"base": {"encoder": {"wieghts": "none"}}}, "Did you mean 'weights'"),
        ({"base": {"loss": {"kind": "dice", "gamma": 1}}}, "no such setting"),
        ({"budget": {"time": "soon"}}, "8h"),
        ({"objective": {"metric": "val/loss"}}, "val/miou"),
        ({"space": {"data.seed": {"kind": "int", "low": 0, "high": 3}}}, "data"),
        ({"space": {"epochs": {"kind": "int", "low": 1, "high": 3}}}, "same number of epochs"),
        (
            {
                "base": {"data": {"kind": "folder", "root": "images"}},
                "space": {"data.root": {"kind": "choice", "values": ["images", "others"]}},
            },
            "opened once for all trials",
        ),
    ],
)
def test_a_bad_recipe_is_a_mistake_that_names_it(recipe_file, parts, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe(recipe_file(**parts), {})


def test_values_that_do_not_go_together_are_found(recipe_file):
    path = recipe_file(
        space={
            "encoder.thaw_epoch": {"kind": "choice", "values": [2, 3]},
            "encoder.freeze": {"kind": "choice", "values": ["none", "all"]},
        }
    )
    with pytest.raises(ConfigError, match="do not fit together"):
        load_recipe(path, {})


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'quickstart'"):
        load_recipe("quickstrat", {})


def test_a_file_that_is_not_yaml_is_named(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("base: {unclosed")
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        load_recipe(str(path), {})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("45m", 2700), ("8h", 28800), ("1h30m", 5400), ("0.5h", 1800)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


def test_numbers_may_be_written_without_a_point(recipe_file):
    space = {"optimizer.lr": {"kind": "choice", "values": [1e-3, 1e-4]}}
    path = recipe_file(space=space, points=[{"optimizer.lr": 1e-3}])
    text = Path(path).read_text().replace("0.0001", "1e-4").replace("0.001", "1e-3")
    Path(path).write_text(text)
    recipe = load_recipe(path, {})
    assert recipe.space["optimizer.lr"].values == (1e-3, 1e-4)


def test_differences_name_the_path():
    assert differences({"a": {"b": 1}}, {"a": {"b": 2}, "c": 3}) == [
        "a.b: 1 -> 2",
        "c: absent -> 3",
    ]


@pytest.mark.parametrize("name", ["recipes", "Recipes"])
def test_a_sweep_cannot_be_named_as_the_folder_of_planned_recipes(name):
    with pytest.raises(UserError, match=r"'[Rr]ecipes': its folder .*Choose another with --name"):
        check_name(name)
    check_name(f"{name}-2")
