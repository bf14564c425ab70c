"""`unetexp tune`, and what uses the settings that it has stored."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import unetexp
from tests.support.data_folders import write_folder_dataset
from tests.support.trained_model import train_briefly
from unetexp.cli.main import app
from unetexp.data import Folder, open_dataset
from unetexp.errors import UserError
from unetexp.export.exporting import Request, export
from unetexp.models.saved_model import CONFIG, read_spec
from unetexp.postprocessing.labels import labels_of
from unetexp.postprocessing.settings import NAME
from unetexp.serving.file_engine import file_engine
from unetexp.serving.torch_engine import torch_engine

SETTINGS = {"temperature": 2.0, "thresholds": {"cell": 0.2}, "minimum_px": {"cell": 12}}


def call(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_folder_dataset(
        tmp_path_factory.mktemp("data"),
        {"train": 8, "val": 12},
        size=(48, 64),
        classes=2,
        class_names=["back", "cell"],
    )


@pytest.fixture(scope="module")
def data(root):
    return open_dataset(Folder(root=str(root)))


@pytest.fixture(scope="module")
def model(root, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    train_briefly(folder, data, epochs=2)
    described = json.loads((folder / CONFIG).read_text())
    described["train"]["data"] = Folder(root=str(root)).tree()
    (folder / CONFIG).write_text(json.dumps(described))
    return folder


@pytest.fixture(scope="module")
def tuned(model, tmp_path_factory):
    """The same model with settings that change its labels."""
    folder = tmp_path_factory.mktemp("tuned")
    shutil.copytree(model, folder, dirs_exist_ok=True)
    described = json.loads((folder / CONFIG).read_text())
    described["model"][NAME] = SETTINGS
    (folder / CONFIG).write_text(json.dumps(described))
    return folder


def pixels(data):
    return data["val"][0].image.permute(1, 2, 0).numpy()


def test_it_writes_the_settings_how_they_were_chosen_and_the_diagram(model, tmp_path):
    said = call("tune", model, "--out", tmp_path / "out")
    assert "postprocessing: " in said and "12 images in 5 folds" in said
    record = json.loads((tmp_path / "out" / "postprocessing.json").read_text())
    assert [step["name"] for step in record["steps"]] == [
        "temperature",
        "thresholds",
        "smallest components",
    ]
    assert sum(bin_["pixels"] for bin_ in record["reliability"]["before"]) == 12 * 48 * 64
    assert Image.open(tmp_path / "out" / "reliability.png").size == (540, 540)
    chosen = read_spec(tmp_path / "out").postprocessing
    assert (chosen.tree() if chosen else None) == (
        record["settings"] if any(step["kept"] for step in record["steps"]) else None
    )


def test_the_labels_are_those_of_the_function(model, tuned, data):
    image = pixels(data)
    plain, loaded = (unetexp.load(folder, device="cpu") for folder in (model, tuned))
    logits = plain.predictor.logits(data["val"][0].image)
    shares = (logits / 2.0).softmax(dim=0).numpy()
    assert np.allclose(loaded.probabilities(image), shares, atol=1e-6)
    expected = labels_of(shares, loaded.spec.postprocessing, loaded.class_names)
    assert (loaded.predict(image) == expected).all()
    assert not (plain.predict(image) == expected).all()


def test_predict_and_evaluate_use_them(tuned, root, data, tmp_path):
    call("predict", tuned, root / "val" / "images", "--out", tmp_path / "out")
    first = sorted((tmp_path / "out").glob("*.png"))[0]
    expected = unetexp.load(tuned, device="cpu").predict(pixels(data))
    assert (np.asarray(Image.open(first)) == expected).all()
    said = call("evaluate", tuned, root, "--format", "json", "--out", tmp_path / "with")
    assert "cell from 0.2 on" in said
    plain = call("evaluate", tuned, root, "--no-postprocessing", "--out", tmp_path / "without")
    assert "postprocessing:" not in plain
    scores = [
        json.loads((tmp_path / each / "results.json").read_text())["metrics"]["miou"]
        for each in ("with", "without")
        if (tmp_path / each / "results.json").exists()
    ]
    assert len(set(scores)) == len(scores)


def test_an_exported_file_and_both_servers_use_them(tuned, data, tmp_path):
    pytest.importorskip("onnxruntime")
    done = export(tuned, Request("onnx", tmp_path / "model.onnx"), data, "val")
    expected = unetexp.load(tuned, device="cpu").predict(pixels(data))
    assert (unetexp.load(done.path).predict(pixels(data)) == expected).all()
    raw = pixels(data).transpose(2, 0, 1)
    for engine in (
        file_engine(done.path, "file", "cpu", None),
        torch_engine(tuned, "model", "cpu", None),
    ):
        for wanted in (False, True):
            (found,) = engine.predict([raw], [wanted])
            assert (found.labels == expected).all()
    with pytest.raises(UserError, match="postprocessed"):
        export(tuned, Request("onnx", tmp_path / "b.onnx", preprocessing=True), data, "val")


def test_the_uncertainty_lies_beside_the_labels(model, root, tmp_path):
    call("predict", model, root / "val" / "images", "--out", tmp_path, "--uncertainty")
    maps = sorted(tmp_path.glob("*_uncertainty.png"))
    assert len(maps) == 12
    written = np.asarray(Image.open(maps[0]))
    image = np.asarray(Image.open(sorted((root / "val" / "images").iterdir())[0]))
    found = unetexp.load(model, device="cpu").uncertainty(image)
    assert found.shape == image.shape[:2] and found.min() >= 0 and found.max() <= 1
    assert np.abs(written / 255 - found).max() < 0.01


def test_a_model_that_mlflow_keeps_needs_a_place_and_a_file_is_refused(tmp_path):
    assert "MODEL" in call("tune", "--help")
    (tmp_path / "m.onnx").write_bytes(b"no model")
    said = call("tune", tmp_path / "m.onnx", code=2)
    assert "error" in said
