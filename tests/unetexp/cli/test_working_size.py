"""The working size and the bounded cache from the command line: train, evaluate, predict."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sweeps.cli.run import app as run_app
from tests.support.data_folders import write_folder_dataset
from unetexp.cli.main import app
from unetexp.data.cache.room import LIMIT_VARIABLE


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(LIMIT_VARIABLE, "7")  # put back at the end, whatever a command sets


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_train_evaluate_and_predict_at_a_working_size_without_a_cache(tmp_path):
    data = write_folder_dataset(tmp_path / "data", size=(96, 128), classes=3)
    settings = (
        "data.resize=64 encoder.name=resnet18 encoder.weights=none augment.crop_px=32 "
        "decoder.kind=slim batch_size=2 epochs=1 batch_norm_images=2 precision=fp32"
    )
    changes = [part for each in settings.split() for part in ("--set", each)]
    out = tmp_path / "out"
    found = run("train", "--data", data, "--out", out, "--cache-gb", 0, *changes)
    assert found.exit_code == 0, found.output
    assert "each time they are needed" in found.output and "data.resize" in found.output
    assert not list((tmp_path / "cache").glob("*/*.images"))
    recorded = json.loads((out / "best/config.json").read_text())
    assert recorded["model"]["resize"] == recorded["train"]["data"]["resize"] == 64
    metrics = json.loads((out / "best/metrics.json").read_text())
    assert sum(map(sum, metrics["confusion"])) == 2 * 96 * 128

    where = tmp_path / "evaluation"
    assert run("evaluate", out / "best", data, "--out", where).exit_code == 0
    results = json.loads((where / "evaluation.json").read_text())
    assert results["data"]["same_as_in_training"]
    assert results["figures"]["miou"] == pytest.approx(metrics["metrics"]["val/miou"])
    other = ("--set", "data.resize=48", "--out", tmp_path / "other")
    assert run("evaluate", out / "best", data, *other).exit_code == 0
    results = json.loads((tmp_path / "other/evaluation.json").read_text())
    assert not results["data"]["same_as_in_training"]

    pixels = np.random.default_rng(0).integers(0, 256, (75, 211, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    made = tmp_path / "made"
    found = run("predict", out / "best", tmp_path / "photo.png", "--out", made)
    assert found.exit_code == 0, found.output
    assert {Image.open(path).size for path in made.glob("*.png")} == {(211, 75)}


@pytest.mark.parametrize("command", [["train"], None])
def test_a_limit_below_zero(command):
    target, arguments = (app, command) if command else (run_app, [])
    found = CliRunner().invoke(target, [*arguments, "--cache-gb", "-1"])
    assert found.exit_code == 2
    assert "--cache-gb '-1': give a number of at least 0" in found.output
