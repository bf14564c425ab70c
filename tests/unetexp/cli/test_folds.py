"""`unetexp train` and `evaluate` with folds and groups."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tests.support.data_folders import write_folder_dataset
from unetexp.cli.main import app
from unetexp.training.experiment import best_figures

SMALL = ["encoder.name=resnet18", "encoder.weights=none", "augment.crop_px=32", "batch_size=2"]


def unetexp(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The data, and a run with two folds beside a test split."""
    place = tmp_path_factory.mktemp("place")
    data, out = write_folder_dataset(place / "data", {"": 8}, size=(32, 40)), place / "run"
    changes = [*SMALL, "data.folds=2", "data.test_fraction=0.25"]
    settings = [part for change in changes for part in ("--set", change)]
    done = unetexp(
        "train", "--data", data, "--epochs", 1, "--out", out, "--device", "cpu", *settings
    )
    assert done.exit_code == 0, done.output
    return data, out, done.output


def test_train_says_mean_and_spread_and_writes_down_the_folds(trained):
    _, out, said = trained
    assert "cross-validation: 2 models" in said
    metrics = best_figures(out)["metrics"]
    assert f"best val/miou {metrics['val/miou']:.4f} ± {metrics['val/miou/std']:.4f}" in said
    splits = json.loads((out / "splits.json").read_text())
    assert {name: len(held["images"]) for name, held in splits.items()} == {
        "fold_0": 3,
        "fold_1": 3,
        "test": 2,
    }


def test_evaluate_takes_the_test_split_and_refuses_what_the_folds_have_seen(trained, tmp_path):
    data, out, _ = trained
    done = unetexp("evaluate", out / "best", data, "--out", tmp_path / "e", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "test, 2 images" in done.output
    for split in ("val", "train", "all"):
        refused = unetexp("evaluate", out / "best", data, "--split", split, "--device", "cpu")
        assert refused.exit_code == 2
        assert "--split test" in refused.output


def test_a_name_without_a_group_is_told_at_once(tmp_path):
    data = write_folder_dataset(tmp_path / "data", {"": 4}, size=(32, 40))
    refused = unetexp(
        "train", "--data", data, "--out", tmp_path / "run", "--set", "data.group_pattern=^p(.)_"
    )
    assert refused.exit_code == 2
    assert "000" in refused.output
