"""`unetexp export`: the file, its proof, and what is refused; `unetexp.load` of what it wrote."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import sys
from types import SimpleNamespace

import mlflow
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import unetexp
from tests.support.exportable import CLASSES, config_on, write_data, write_model
from unetexp.cli.main import app
from unetexp.errors import GateError, UserError
from unetexp.export.formats import onnx_file
from unetexp.export.proof import Figures, Proof
from unetexp.models.saved_model import WEIGHTS

runner = CliRunner()


def export(*arguments):
    return runner.invoke(app, ["export", *map(str, arguments)])


def shown(result):
    return " ".join((result.output).split())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data, a model of it, and the model as an ONNX file."""
    root = tmp_path_factory.mktemp("place")
    data = write_data(root / "data")
    model = write_model(root / "model", config_on(data, precision="fp32"))
    file = root / "made" / "model.onnx"
    result = export(model, "--to", "onnx", "--out", file)
    assert result.exit_code == 0, result.output
    return SimpleNamespace(root=root, data=data, model=model, file=file, said=shown(result))


class TestProof:
    def test_the_table_is_printed_and_lies_beside_the_file(self, place):
        card = place.file.with_name("model.onnx.md").read_text()
        for text in (place.said, card):
            assert "PyTorch fp32" in text
            assert "onnx fp32" in text
            assert "100.000%" in text
            assert "val, 3 images" in text
        assert "unetexp predict" in place.said
        assert all(name in card for name in CLASSES)

    def test_the_files_description_holds_it(self, place):
        properties = onnx.load(place.file).metadata_props
        described = json.loads({p.key: p.value for p in properties}["unetexp"])
        assert described["model"]["class_names"] == list(CLASSES)
        assert described["model"]["mean"] and described["model"]["std"]
        assert described["proof"]["equal_pixels"] == 1
        assert described["proof"]["exported"]["miou"] == pytest.approx(
            described["proof"]["pytorch"]["miou"]
        )
        assert described["weights_sha256"]
        assert described["run_id"] is None

    def test_its_miou_is_that_of_evaluate(self, place, tmp_path):
        for model in (place.model, place.file):
            given = ["evaluate", str(model), str(place.data), "--format", "json", "--device", "cpu"]
            result = runner.invoke(app, [*given, "--out", str(tmp_path / "evaluation")])
            assert result.exit_code == 0, result.output
            found = json.loads((tmp_path / "evaluation/evaluation.json").read_text())
            proof = unetexp.load(place.file).description.proof
            assert found["figures"]["miou"] == pytest.approx(proof["pytorch"]["miou"], abs=1e-6)
            assert found["data"]["same_as_in_training"]

    @pytest.mark.slow
    def test_a_worse_file_is_refused_and_what_was_there_stays(self, place, tmp_path, monkeypatch):
        def spoilt(subject):
            other = copy.deepcopy(subject.model)
            other.head.bias.data = other.head.bias.data.roll(1)
            return exact(dataclasses.replace(subject, model=other))

        exact = onnx_file.onnx_model
        monkeypatch.setattr(onnx_file, "onnx_model", spoilt)
        folder = tmp_path / "all-background"
        shutil.copytree(place.model, folder)
        weights = load_file(folder / WEIGHTS)
        weights["head.weight"] *= 0
        weights["head.bias"] = torch.tensor([1.0, 0.0, 0.0])
        save_file(weights, folder / WEIGHTS)
        out = tmp_path / "out" / "model.onnx"
        out.parent.mkdir()
        out.write_bytes(b"before")
        result = export(folder, "--to", "onnx", "--out", out)
        assert result.exit_code == 3, result.output
        assert "--max-drop allows 0.5" in shown(result)
        assert "Classes that lost: back " in shown(result)
        assert out.read_bytes() == b"before"
        assert [path.name for path in out.parent.iterdir()] == ["model.onnx"]

    @pytest.mark.slow
    def test_it_is_recorded_in_the_models_run(self, place, tmp_path):
        uri = f"sqlite:///{tmp_path}/mlflow.db"
        client = mlflow.MlflowClient(uri)
        experiment = client.create_experiment("unetexp", f"file://{tmp_path}/artifacts")
        run = client.create_run(experiment, tags={"git.commit": "0123abc"}).info.run_id
        for path in place.model.iterdir():
            client.log_artifact(run, str(path), "checkpoint")
        out = tmp_path / "model.onnx"
        result = export(run, "--to", "onnx", "--out", out, "--tracking-uri", uri)
        assert result.exit_code == 0, result.output
        metrics = client.get_run(run).data.metrics
        assert metrics["export/onnx-fp32/equal_pixels"] == 1
        assert metrics["export/onnx-fp32/miou"] == metrics["export/onnx-fp32/pytorch_miou"]
        assert metrics["export/onnx-fp32/latency_ms"] > 0
        assert [file.path for file in client.list_artifacts(run, "exports")] == [
            "exports/onnx-fp32.md"
        ]
        description = unetexp.load(out).description
        assert (description.run_id, description.commit) == (run, "0123abc")


def proof(**iou):
    """Of a file whose classes have these IoUs, and of a PyTorch model with 0.6 of each."""
    fields = {"split": "val", "images": 3, "latency_size": (40, 48), "threads": 1}
    ours, theirs = (
        Figures(name="a", miou=sum(each.values()) / len(each), iou=each, latency_ms=1)
        for each in (dict.fromkeys(iou, 0.6), iou)
    )
    return Proof(**fields, pytorch=ours, exported=theirs, equal_pixels=0.9)


class TestGate:
    def test_a_file_that_loses_more_names_the_classes_that_lost_most_first(self):
        one = proof(back=0.59, cell=0.4, wall=0.6)
        assert one.lost_points == pytest.approx(7)
        words = "falls by 7.00 points, from 0.6000 to 0.5300, and --max-drop allows 0.5"
        with pytest.raises(GateError, match=words) as raised:
            one.require(0.5, "model.onnx")
        losers = "cell 20.00 points (0.6000 to 0.4000), back 1.00 points (0.6000 to 0.5900)."
        assert f"Classes that lost: {losers}" in str(raised.value)

    def test_one_that_loses_as_much_as_is_allowed_is_kept(self):
        proof(back=0.59, cell=0.4, wall=0.6).require(7.001, "model.onnx")
        proof(back=0.7, cell=0.6).require(0, "model.onnx")


class TestMistakes:
    @pytest.mark.parametrize("command", ["--to onnx --out model.xml", "--to openvino --out m.onnx"])
    def test_another_ending(self, place, command, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        result = export(place.model, *command.split())
        assert result.exit_code == 2
        assert "ends in ." in shown(result)

    def test_a_library_that_is_not_installed_names_its_extra(self, place, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnxscript", None)
        result = export(place.model, "--to", "onnx", "--out", tmp_path / "model.onnx")
        assert result.exit_code == 2
        assert "pip install 'unetexp[onnx]'" in shown(result)
        assert not list(tmp_path.iterdir())

    def test_a_model_of_another_version(self, place, tmp_path):
        folder = tmp_path / "model"
        folder.mkdir()
        description = json.loads((place.model / "config.json").read_text())
        description["model"]["attention_heads"] = 8
        (folder / "config.json").write_text(json.dumps(description))
        save_file(load_file(place.model / WEIGHTS), folder / WEIGHTS)
        result = export(folder, "--to", "onnx", "--out", tmp_path / "model.onnx")
        assert result.exit_code == 2
        assert "Was it written by another version?" in shown(result)

    def test_preprocessing_of_a_model_with_a_working_size(self, place, tmp_path):
        config = config_on(place.data, **{"data.resize": 24})
        folder = write_model(tmp_path / "resized", config)
        result = export(folder, "--to", "onnx", "--preprocessing", "--out", tmp_path / "m.onnx")
        assert result.exit_code == 2
        assert "--preprocessing: this model works on images that are scaled" in shown(result)

    def test_an_operator_that_the_format_lacks(self, place, tmp_path, monkeypatch):
        def lacking(*_, **__):
            raise torch.onnx.errors.OnnxExporterError("no function for aten.strange")

        monkeypatch.setattr(torch.onnx, "export", lacking)
        result = export(place.model, "--to", "onnx", "--out", tmp_path / "model.onnx")
        assert result.exit_code == 2
        assert "ONNX lacks an operator of this network: no function for aten.strange" in shown(
            result
        )
        assert "Choose --to" in shown(result)


class TestLoad:
    @pytest.fixture(scope="class")
    def models(self, place):
        return unetexp.load(place.model, device="cpu"), unetexp.load(place.file)

    @pytest.fixture(scope="class")
    def images(self, place):
        rng = np.random.default_rng(0)
        return [
            rng.integers(0, 256, (40, 50, 3), np.uint8),
            rng.integers(0, 256, (33, 37), np.uint8),
            place.data / "val/images/000.png",
            str(place.data / "val/images/001.png"),
            (place.data / "val/images/002.png").read_bytes(),
        ]

    def test_both_say_the_same_of_every_form(self, models, images):
        ours, theirs = (model.predict(images) for model in models)
        assert [labels.shape for labels in ours] == [(40, 50), (33, 37)] + [(40, 48)] * 3
        for one, other in zip(ours, theirs, strict=True):
            assert one.dtype == other.dtype == np.uint8
            assert (one == other).mean() > 0.999
        shares = [model.probabilities(images[0]) for model in models]
        np.testing.assert_allclose(shares[0], shares[1], atol=1e-4)
        np.testing.assert_allclose(shares[1].sum(axis=0), 1, atol=1e-5)

    def test_one_image_and_a_batch(self, models, images):
        for model in models:
            assert model.predict(images[0]).shape == (40, 50)
            assert np.array_equal(
                model.predict(np.stack([images[0]] * 2))[1], model.predict(images[0])
            )
            with Image.open(images[2]) as picture:
                assert np.array_equal(model.predict(np.asarray(picture)), model.predict(images[2]))

    def test_tiles_are_those_of_every_model(self, models):
        image = torch.randint(0, 256, (3, 150, 170)).to(torch.uint8)
        ours, theirs = (
            model.predictor_with(tile_px=64, overlap_px=32, flips=["left_right"]).logits(image)
            for model in models
        )
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)

    def test_what_it_tells_of_itself(self, models):
        ours, theirs = models
        assert (ours.runtime, theirs.runtime) == ("pytorch", "onnx")
        assert ours.class_names == theirs.class_names == CLASSES
        assert theirs.spec == ours.spec.of_images()
        assert ours.description is None

    def test_the_network_of_a_folder_is_had_through_it(self, models):
        ours, theirs = models
        assert ours.training is False
        assert len(ours.state_dict()) > 0
        images = torch.randn(2, 3, 40, 50)
        with torch.inference_mode():
            torch.testing.assert_close(ours(images), theirs(images), atol=1e-4, rtol=1e-3)
        with pytest.raises(AttributeError, match="state_dict"):
            theirs.state_dict()

    def test_a_file_that_is_no_image(self, models, tmp_path):
        (tmp_path / "text.png").write_text("no image")
        for model in models:
            with pytest.raises(unetexp.DataError, match=r"text\.png"):
                model.predict(tmp_path / "text.png")

    @pytest.mark.slow
    def test_with_preprocessing_there_are_label_maps_only(self, place, models, images, tmp_path):
        out = tmp_path / "raw.onnx"
        result = export(place.model, "--to", "onnx", "--preprocessing", "--out", out)
        assert result.exit_code == 0, result.output
        raw = unetexp.load(out)
        for one, other in zip(raw.predict(images), models[0].predict(images), strict=True):
            assert (one == other).mean() > 0.999
        with pytest.raises(UserError, match="exported with --preprocessing"):
            raw.probabilities(images[0])
        with pytest.raises(UserError, match="exported with --preprocessing"):
            raw.predictor_with(flips=["left_right"])
        images = ["predict", str(out), str(place.data / "val"), "--out", str(tmp_path / "labels")]
        result = runner.invoke(app, [*images, "--probabilities"])
        assert result.exit_code == 2
        assert "--probabilities: this file was exported with --preprocessing" in shown(result)
        (given,) = onnxruntime.InferenceSession(str(out)).get_inputs()
        assert (given.type, given.shape) == (
            "tensor(uint8)",
            ["batch", "height", "width", 3],
        )


def test_predict_takes_a_file(place, tmp_path):
    images = str(place.data / "val/images")
    for name, model in (("ours", place.model), ("theirs", place.file)):
        given = ["predict", str(model), images, "--out", str(tmp_path / name), "--device", "cpu"]
        result = runner.invoke(app, [*given, "--no-overlay", "--probabilities"])
        assert result.exit_code == 0, result.output
    for path in (tmp_path / "ours").glob("*.png"):
        ours, theirs = (
            np.asarray(Image.open(each)) for each in (path, tmp_path / "theirs" / path.name)
        )
        assert (ours == theirs).mean() > 0.999
