"""Plans: what follows from the data, and that the text is a recipe that runs."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from sweeps.config.loading import load_recipe
from tests.support.data_folders import write_folder_dataset
from unetexp.cli.main import app
from unetexp.data import Folder, Mni152
from unetexp.planning.facts import DataFacts, look_at
from unetexp.planning.plan import plan
from unetexp.planning.rules import augmentation, lengths, losses, sizes


def facts(**changes):
    """Of 400 photographs of 3000 x 4000 px with a rare and large second class."""
    known = {
        "images": {"train": 320, "val": 80},
        "looked_at": 48,
        "heights": (3000,),
        "widths": (4000,),
        "channels": 3,
        "bits": 8,
        "class_names": ("0", "1"),
        "shares": (0.95, 0.05),
        "void_share": 0.0,
        "diameters": (300.0, 400.0),
    }
    return DataFacts(**{**known, **changes})


def value(settings, path):
    return next((setting.value for setting in settings if setting.path == path), None)


@pytest.mark.parametrize(
    ("size", "diameters", "device", "resize"),
    [
        ((400, 300), (10.0,), "cpu", None),  # small images stay as they are
        ((3000, 4000), (1000.0,), "cpu", 512),  # large objects are seen in small images too
        ((3000, 4000), (50.0,), "cpu", 640),  # 8 px of 50 px
        ((3000, 4000), (10.0, 50.0, 50.0), "cpu", 1024),  # more would cost too much
        ((3000, 4000), (10.0, 50.0, 50.0), "cuda", 1792),  # 8 px of 18 px
        ((3000, 4000), (20.0,), "cpu", 1600),  # else most objects would vanish
        ((3000, 4000), (5.0,), "cpu", None),  # tiny: images are cut, not shrunk
        ((1500, 2000), (5.0,), "cuda", None),
    ],
)
def test_the_working_size_follows_the_objects_and_the_device(size, diameters, device, resize):
    height, width = size
    given = facts(heights=(height,), widths=(width,), diameters=diameters)
    found = sizes(given, device)
    assert value(found.settings, "data.resize") == resize
    assert found.crop % 32 == 0
    assert found.crop <= found.shortest


@pytest.mark.parametrize(
    ("settings", "shares", "void_share"),
    [
        ({"ignore": "2"}, (0.6, 0.4), 1 / 6),
        ({"ignore": "0"}, (2 / 3, 1 / 3), 1 / 2),
        ({"ignore": "2", "label_map": {0: 0, 1: 1, 2: 1}}, (0.6, 0.4), 1 / 6),
    ],
)
def test_ignored_values_are_no_classes(tmp_path, settings, shares, void_share):
    mask = np.repeat(np.array([0, 1, 2], np.uint8), (24, 16, 8))[:, np.newaxis].repeat(48, axis=1)
    for name, pixels in (("images", np.zeros((48, 48, 3), np.uint8)), ("masks", mask)):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.fromarray(pixels + number * (name == "images")).save(
                tmp_path / name / f"{number}.png"
            )
    found = look_at(Folder(root=str(tmp_path), **settings))
    assert found.shares == pytest.approx(shares)
    assert found.void_share == pytest.approx(void_share)


def test_tiny_images_get_the_smallest_crop():
    assert sizes(facts(heights=(20,), widths=(24,)), "cpu").crop == 32


@pytest.mark.parametrize("train", [1, 2, 5, 9, 40, 300, 5000])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_epoch_has_ten_steps_at_least_and_batches_are_filled(train, device):
    given = lengths(facts(images={"train": train, "val": 1}), device).base
    batch, repeats = value(given, "batch_size"), value(given, "min_steps")
    assert 1 <= batch <= train
    assert (repeats or train // batch) >= 10
    assert 6 <= value(given, "epochs") <= 100


@pytest.mark.parametrize(
    ("changes", "preset"),
    [
        ({"channels": 1}, "medical"),
        ({"images": {"train": 20, "val": 5}}, "strong"),
        ({"images": {"train": 200, "val": 5}}, "medium"),
        ({}, "light"),
    ],
)
def test_few_images_are_changed_more(changes, preset):
    assert value(augmentation(facts(**changes)).base, "augment.preset") == preset


def test_rare_classes_get_overlap_losses_weights_and_crops():
    space = losses(facts(shares=(0.999, 0.001))).space
    assert "cross_entropy" not in value(space, "loss.kind")["values"]
    assert value(space, "augment.rare_crop")["values"] == [0.0, 0.5]
    assert "none" in value(space, "loss.class_weights")["values"]
    balanced = losses(facts(shares=(0.6, 0.4))).space
    assert "cross_entropy" in value(balanced, "loss.kind")["values"]
    assert value(balanced, "augment.rare_crop") is None


def test_the_facts_are_those_of_the_images(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(10):
        image, mask = np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80), np.uint8)
        mask[10:30, 20:40] = 1  # one square of 20 px: a circle of its area is 22.6 px wide
        Image.fromarray(image + number).save(tmp_path / f"images/{number}.png")
        Image.fromarray(mask).save(tmp_path / f"masks/{number}.png")
    found = look_at(Folder(root=str(tmp_path)))
    assert found.images == {"train": 8, "val": 2}
    assert (found.longest_side, found.shortest_side, found.channels) == (80, 60, 3)
    assert found.usual_object() == pytest.approx(2 * np.sqrt(400 / np.pi))
    assert found.rarest == ("1", pytest.approx(400 / 4800))


def test_every_line_of_a_plan_has_its_reason_and_the_text_is_a_recipe(tmp_path):
    text = plan(Mni152(), look_at(Mni152()), "cpu").text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    settings = [line for line in lines if not line.rstrip().endswith(":")]
    assert all("  # " in line for line in settings)
    (tmp_path / "mine.yaml").write_text(text)
    recipe = load_recipe(str(tmp_path / "mine.yaml"), {})
    assert recipe.base.augment.crop_px == 96
    assert recipe.base.augment.preset == "medical"
    assert recipe.name == "mni152"


def call(*arguments, code=0):
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert done.exit_code == code, done.output
    return done


def test_the_command_writes_a_recipe_to_the_terminal_or_a_file(tmp_path):
    root = write_folder_dataset(tmp_path / "cells", {"train": 4, "val": 2}, class_names=("a", "b"))
    printed = call("data", "plan", root, "--device", "cpu").stdout
    tree = yaml.safe_load(printed)
    assert tree["base"]["data"] == {"kind": "folder", "root": str(root)}
    assert tree["name"] == "cells"
    file = tmp_path / "new" / "mine.yaml"
    said = call("data", "plan", root, "--device", "cpu", "--out", file).output
    assert f"sweeps/run.py {file}" in said
    assert load_recipe(str(file), {}).base.data.root == str(root)
    assert "already" in call("data", "plan", root, "--out", file, code=2).output


@pytest.mark.parametrize("folder", ["2024", "1e3", "no", "a b.c", "..x"])
def test_any_name_of_the_folder_gives_a_recipe(tmp_path, folder):
    root = write_folder_dataset(tmp_path / folder, {"": 5})
    call("data", "plan", root, "--device", "cpu", "--out", tmp_path / "mine.yaml")
    recipe = load_recipe(str(tmp_path / "mine.yaml"), {})
    assert recipe.base.data.root == str(root)
    assert [point["encoder.kind"] for point in recipe.points] == ["resnet", "timm"]


def test_settings_of_the_data_go_into_the_plan(tmp_path):
    root = write_folder_dataset(tmp_path / "cells", {"": 6})
    printed = call("data", "plan", root, "--set", "data.val_fraction=0.5").stdout
    assert yaml.safe_load(printed)["base"]["data"]["val_fraction"] == 0.5
    assert "3 train, 3 val" in printed


def test_a_place_that_does_not_exist_is_the_users_mistake():
    assert "/no/such" in call("data", "plan", "/no/such", code=2).output
