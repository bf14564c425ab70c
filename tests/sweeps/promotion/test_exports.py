"""`promote --export`: exports are registered with the weights, under the same gates, and used."""

from __future__ import annotations

import sys

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

import unetexp
from sweeps.promotion import latency_limit
from sweeps.promotion.exports import judged
from sweeps.promotion.registry import MODEL
from sweeps.tracking.store import local_path
from tests.support.promotable import Place, Trial
from tests.support.promoting import aliases, call, copy_of, read_card, trial_run
from unetexp.cli.main import app
from unetexp.errors import CheckpointError, ConfigError, UserError
from unetexp.runtimes.flavors import exports_beside, flavor_named
from unetexp.serving.opening import open_engine
from unetexp.tracking.locate import locate

pytest.importorskip("onnxruntime")
CHAMPION = f"models:/{MODEL}@champion"
IMAGE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("exports"))
    good, poor = (place.model(answer) for answer in range(2))
    place.sweep("good", Trial(0.8, good), Trial(0.5, poor))
    place.sweep("poor", Trial(0.9, poor))
    return place


@pytest.fixture(scope="module")
def promoted(place):
    """The address of a store in which `good` is champion with an ONNX file that is used."""
    uri = copy_of(place.root / "mlflow.db", "promoted")
    code, said = call(
        *(uri, "good", "--export", "onnx,torchscript-fp32", "--flavor", "onnx"),
        *("--set", "promotion.max_latency_ms=100000"),
    )
    assert code == 0, said
    return uri, said


def only_version(uri):
    return MlflowClient(uri, uri).get_model_version_by_alias(MODEL, "champion")


class TestPromoted:
    def test_the_terminal_shows_each_export_and_its_gates(self, promoted):
        _, said = promoted
        for part in (
            "onnx-fp32 *",
            "torchscript-fp32",
            "points lost on val",
            "used with onnx-fp32",
        ):
            assert part in said
        words = " ".join(said.split())
        assert "onnx-fp32: latency at most" in words and "torchscript-fp32: latency" not in words
        assert said.count("at most 0.5 points") == 2 and "not what is served" in words

    def test_the_files_lie_beside_the_weights_and_keep_their_proof(self, promoted):
        uri, _ = promoted
        folder = locate(CHAMPION, uri)
        found = exports_beside(folder)
        assert list(found) == ["onnx-fp32", "torchscript-fp32"]
        assert all((path.parent / f"{path.name}.md").is_file() for path in found.values())
        version = only_version(uri)
        assert version.tags["exports"] == "onnx-fp32, torchscript-fp32"
        assert version.tags["flavor"] == "onnx-fp32"

    def test_the_card_and_the_run_tell_of_them(self, promoted):
        uri, _ = promoted
        card = read_card(uri, "1")
        assert "## Exports" in card and "is used with **onnx-fp32**" in card
        metrics = trial_run(uri, "good", "0000").data.metrics
        assert metrics["export/onnx-fp32/equal_pixels"] == 1.0
        assert {"export/onnx-fp32/test_miou", "export/torchscript-fp32/latency_ms"} <= set(metrics)

    def test_mlflow_uses_the_flavor_unless_told_otherwise(self, promoted):
        uri, _ = promoted
        source = str(local_path(only_version(uri).source))
        runtimes, labels = [], []
        for config in (None, {"flavor": "pytorch"}, {"flavor": "torchscript-fp32"}):
            model = mlflow.pyfunc.load_model(source, model_config=config)
            predictor = model.unwrap_python_model().predictor
            runtimes.append(type(predictor._network).__name__)
            labels.append(model.predict(IMAGE))
        assert runtimes == ["_Exported", "_Torch", "_Exported"]
        assert (labels[0] == labels[1]).all() and (labels[0] == labels[2]).all()
        with pytest.raises(ConfigError, match=r"flavor.*openvino.*pytorch.*onnx-fp32"):
            mlflow.pyfunc.load_model(source, model_config={"flavor": "openvino-int8"})

    def test_the_python_door_and_the_server_take_the_same(self, promoted):
        uri, _ = promoted
        assert unetexp.load(CHAMPION, tracking_uri=uri).runtime == "onnx"
        weights = unetexp.load(CHAMPION, flavor="pytorch", tracking_uri=uri)
        assert weights.runtime == "pytorch"
        assert (
            weights.predict(IMAGE) == unetexp.load(CHAMPION, tracking_uri=uri).predict(IMAGE)
        ).all()
        assert "onnxruntime" in open_engine(CHAMPION, tracking_uri=uri).runtime
        assert "PyTorch" in open_engine(CHAMPION, flavor="pytorch", tracking_uri=uri).runtime
        with pytest.raises(ConfigError, match="one exported file"):
            unetexp.load(exports_beside(locate(CHAMPION, uri))["onnx-fp32"], flavor="onnx")

    def test_predict_takes_the_option_and_names_what_there_is(self, promoted, place, tmp_path):
        uri, _ = promoted
        images = place.data_root / "test" / "images"
        flags = [str(images), "--out", str(tmp_path / "out"), "--tracking-uri", uri]
        wrong = CliRunner().invoke(app, ["predict", CHAMPION, *flags, "--flavor", "pt2"])
        assert wrong.exit_code == 2 and "onnx-fp32" in wrong.output
        right = CliRunner().invoke(app, ["predict", CHAMPION, *flags, "--flavour", "pytorch"])
        assert right.exit_code == 0, right.output

    def test_a_file_that_gives_other_numbers_is_refused_at_load(self, promoted, monkeypatch):
        uri, _ = promoted
        monkeypatch.setattr("unetexp.runtimes.probe.Probe.difference", lambda *_: 1.0)
        with pytest.raises(CheckpointError, match="gives other numbers here"):
            unetexp.load(CHAMPION, tracking_uri=uri)

    def test_a_runtime_that_is_missing_at_load_names_its_extra(self, promoted, monkeypatch):
        uri, _ = promoted
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(UserError, match=r"unetexp\[onnx\]"):
            unetexp.load(CHAMPION, tracking_uri=uri)
        assert unetexp.load(CHAMPION, flavor="pytorch", tracking_uri=uri).runtime == "pytorch"


@pytest.mark.slow
class TestGates:
    @pytest.fixture
    def uri(self, place, tmp_path):
        return copy_of(place.root / "mlflow.db", tmp_path.name)

    def test_an_export_that_loses_too_much_changes_nothing(self, uri, monkeypatch):
        monkeypatch.setattr(judged.Proof, "lost_points", property(lambda _: 1.5))
        monkeypatch.setattr(judged.Proof, "lost_by_class", lambda _: [("cell", 4.0)])
        code, said = call(uri, "good", "--export", "onnx")
        assert code == 3
        assert "gate red: onnx-fp32: lost by exporting: 1.50 points of mIoU on val" in said
        assert "most: cell 4.00" in said and "missed by 1.00 points" in said
        assert aliases(uri) == (None, None)
        assert call(uri, "good", "--export", "onnx", "--max-drop", 2)[0] == 0

    def test_the_latency_gate_judges_what_is_served(self, uri, monkeypatch):
        took = {"UNet": 50.0, "RuntimeNetwork": 5.0}

        def fake(model, *_):
            return took[type(model).__name__]

        for module in (judged, latency_limit, "sweeps.promotion.evaluation"):
            target = module if isinstance(module, str) else module.__name__
            monkeypatch.setattr(f"{target}.latency_ms", fake)
        limit = ("--max-latency-ms", 10)
        code, said = call(uri, "good", *limit, "--export", "onnx")
        assert code == 3 and "so fast on this machine in pytorch" in said
        assert "--flavor openvino-int8" in said
        code, said = call(uri, "good", *limit, "--export", "onnx", "--flavor", "onnx")
        assert code == 0, said
        took["RuntimeNetwork"] = 20.0
        code, said = call(
            *(uri, "good", "--export", "onnx", "--flavor", "onnx"),
            *("--set", "promotion.max_latency_ms=10"),
        )
        assert code == 3 and "gate red: onnx-fp32: latency" in said

    def test_a_dry_run_judges_and_registers_nothing(self, uri):
        code, said = call(uri, "good", "--export", "onnx", "--dry-run")
        assert code == 0 and "onnx-fp32" in said and "Nothing was changed" in said
        assert aliases(uri) == (None, None)
        assert not any(
            name.startswith("export/") for name in trial_run(uri, "good", "0000").data.metrics
        )

    def test_a_rollback_brings_back_the_exports_of_then(self, uri):
        assert call(uri, "good", "--export", "onnx", "--flavor", "onnx")[0] == 0
        assert call(uri, "poor", "--force")[0] == 0
        assert unetexp.load(CHAMPION, tracking_uri=uri).runtime == "pytorch"
        assert call(uri, "--rollback")[0] == 0
        assert unetexp.load(CHAMPION, tracking_uri=uri).runtime == "onnx"


class TestMistakes:
    @pytest.mark.parametrize(
        "arguments, expected",
        [
            (["--export", "onyx"], "Choices: onnx-fp32"),
            (["--export", "torchscript-int8"], "--export"),
            (["--export", "onnx", "--flavor", "openvino"], "flavor"),
            (["--flavor", "onnx"], "needs --export"),
            (["--max-drop", "1"], "needs --export"),
            (["--rollback", "--export", "onnx"], "takes no other choice"),
        ],
    )
    def test_they_are_said_before_anything_is_done(self, place, arguments, expected):
        code, said = call(place.uri, *arguments)
        assert code == 2 and expected in said

    def test_a_missing_runtime_is_said_first(self, place, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        code, said = call(place.uri, "good", "--export", "onnx")
        assert code == 2 and "unetexp[onnx]" in said

    @pytest.mark.parametrize(
        "name, found",
        [("onnx", ("onnx", "fp32")), (" OpenVINO-int8", ("openvino", "int8")), ("onnx-x", None)],
    )
    def test_names(self, name, found):
        assert flavor_named(name) == found
