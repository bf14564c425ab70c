"""The place of data on the command line: trained on, evaluated, and told in one paragraph."""

import re
import shlex

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sweeps.cli.run import app as run_app
from tests.support.data_folders import write_folder_dataset
from tests.unetexp.data.layouts.test_layouts import SPLIT, write_pairs
from unetexp.cli.main import app

TINY = [
    *("--set", "encoder.name=resnet18", "--set", "encoder.weights=none", "--epochs", "1"),
    *("--set", "augment.crop_px=32", "--set", "batch_size=2"),
]


def unetexp(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def dry_run(tmp_path, *arguments):
    places = ("--storage", tmp_path / "runs", "--tracking-uri", f"sqlite:///{tmp_path}/m.db")
    given = [str(each) for each in (*arguments, "--dry-run", *places)]
    return CliRunner().invoke(run_app, given)


@pytest.mark.parametrize("layout", ["together", "img_dir"])
def test_a_layout_is_trained_on_and_evaluated(tmp_path, layout):
    root = tmp_path / "data"
    if layout == "together":
        write_pairs(root, "{n}.jpg", "{n}_segmentation.png", count=5)
    else:
        write_pairs(root, *SPLIT["img_dir/train"], splits={"train": 4, "val": 2})
    out = tmp_path / "run"
    trained = unetexp("train", "--data", root, "--out", out, "--device", "cpu", *TINY)
    assert trained.exit_code == 0, trained.output
    said = re.search(r"^data: (.*)$", trained.output, re.MULTILINE)[1]
    assert "2 classes" in said and "train 4" in said and "40 x 48 px" in said
    assert said in (out / "data.txt").read_text("utf-8")
    again = unetexp("evaluate", out / "best", root, "--out", tmp_path / "e", "--device", "cpu")
    assert again.exit_code == 0, again.output
    assert '"same_as_in_training": true' in (tmp_path / "e/evaluation.json").read_text()


def test_several_folders_of_images_are_recorded_in_the_config(tmp_path):
    write_pairs(tmp_path / "data", "a/{n}.png", "masks/{n}.png")
    text = "data.images={one: a}"
    flags = ("--data", tmp_path / "data", "--set", text, "--out", tmp_path / "run")
    result = unetexp("train", *flags, "--device", "cpu", *TINY)
    assert result.exit_code == 0, result.output
    assert "one: a" in (tmp_path / "run/config.yaml").read_text()


class TestDryRun:
    def test_it_reads_the_data_and_says_what_it_understood(self, tmp_path):
        root = write_folder_dataset(tmp_path / "data", class_names=("ground", "cell"), void=0.1)
        result = dry_run(tmp_path, "--data", root)
        assert result.exit_code == 0, result.output
        said = re.search(r"^data: (.*)$", result.output, re.MULTILINE)[1]
        for words in (
            f"6 images with masks from {root}",
            "train 4, val 2",
            "ground (",
            "cell (",
            "255 is void: 10.",
            "3 channels of 8 bits",
        ):
            assert words in said
        assert "# Planned from the data" in result.output  # where no recipe is given
        assert not (tmp_path / "runs").exists() and not (tmp_path / "m.db").exists()

    @pytest.mark.parametrize("recipe", [(), ("folder",)])
    def test_a_folder_that_does_not_exist_is_one_message(self, tmp_path, recipe):
        result = dry_run(tmp_path, *recipe, "--data", "/no/such")
        assert result.exit_code == 2
        assert "/no/such does not exist" in result.output
        assert "Traceback" not in result.output

    def test_data_that_cannot_be_read_is_one_message(self, tmp_path):
        root = write_folder_dataset(tmp_path / "data")
        (root / "val/images/001.png").write_bytes(b"no image")
        result = dry_run(tmp_path, "folder", "--data", root)
        assert result.exit_code == 2
        assert "val/images/001.png" in result.output

    def test_the_printed_setting_is_taken(self, tmp_path):
        root = write_folder_dataset(tmp_path / "data")
        for path in root.glob("*/masks/*"):
            mask = np.asarray(Image.open(path))
            Image.fromarray(np.where(mask, 24, 7).astype(np.uint8)).save(path)
        refused = dry_run(tmp_path, "--data", root)
        assert refused.exit_code == 2
        pasted = shlex.split(re.search(r"--set 'data\.label_map=[^']*'", refused.output)[0])
        assert dry_run(tmp_path, "--data", root, *pasted).exit_code == 0

    def test_a_kind_is_named_in_place_of_a_folder(self, tmp_path):
        result = dry_run(tmp_path, "quickstart", "--data", "mni152")
        assert result.exit_code == 0, result.output
        assert re.search(r"^data: \d+ images with masks from mni152", result.output, re.MULTILINE)

    def test_what_would_be_downloaded_is_not_read(self, tmp_path, monkeypatch):
        monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "cache"))
        result = dry_run(tmp_path, "oxford_pet")
        assert result.exit_code == 0, result.output
        assert "not read" in result.output


def test_a_file_that_is_no_table_is_a_mistake(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    result = unetexp("train", "--data", tmp_path / "notes.txt", "--out", tmp_path / "x")
    assert result.exit_code == 2
    assert "is a file, not a folder" in result.output
