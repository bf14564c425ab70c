"""int8 in three runtimes: of a trained model, calibrated with its training images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.exportable import subject_of
from tests.support.trained_model import three_classes, train_briefly
from unetexp.export.calibration import calibration_inputs
from unetexp.export.exporting import Request, export
from unetexp.export.formats import writer_of
from unetexp.models.saved_model import read_spec
from unetexp.runtimes.runtime import format_module

pytestmark = pytest.mark.usefixtures("one_thread")

TARGETS = ["openvino", "onnx", "pt2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return three_classes(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A briefly trained model's folder."""
    decoder = {"widths": [32, 16, 16, 8, 8]}
    return train_briefly(tmp_path_factory.mktemp("model"), data, decoder=decoder)


@pytest.mark.slow  # it trains, and converts
@pytest.mark.parametrize("target", TARGETS)
def test_a_trained_model_hardly_loses(target, trained, data, tmp_path):
    suffix = writer_of(target, "int8").SUFFIX
    request = Request(target, tmp_path / f"model{suffix}", "int8", calibration_images=8)

    done = export(trained, request, data, "val")

    assert done.proof.pytorch.miou > 0.5  # it has learned something that can be lost
    assert done.proof.lost_points <= 0.5
    assert done.proof.equal_pixels > 0.97
    assert done.size_mb < 0.45 * (trained / "model.safetensors").stat().st_size / 1e6


def test_calibration_chooses_the_same_images_evenly(trained, data):
    spec = read_spec(trained)
    first, again = (calibration_inputs(data, spec, most=4) for _ in range(2))

    assert len(first) == 4
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert len(calibration_inputs(data, spec, most=99)) == 16  # there are no more


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("encoder", "decoder", "upsampling"),
    [
        ({"kind": "resnet", "name": "resnet18"}, "classic", "conv_transpose"),
        ({"kind": "timm", "name": "tf_efficientnet_lite0"}, "lite", "bilinear"),
        ({"kind": "timm", "name": "convnext_atto"}, "slim", "pixel_shuffle"),
        ({"kind": "vit", "name": "test_vit"}, "slim", "nearest"),
    ],
)
def test_other_encoders_and_decoders(encoder, decoder, upsampling, target, tmp_path):
    """With random weights labels are close calls, so the logits are compared."""
    chance = np.random.default_rng(0)
    images = chance.normal(size=(6, 1, 3, 64, 96)).astype(np.float32)
    subject = subject_of(encoder, decoder, upsampling, precision="int8", calibration=images)
    writer = writer_of(target, "int8")
    path = tmp_path / f"model{writer.SUFFIX}"
    writer.write(subject, path)
    writer.describe(path, "{}")
    run = format_module(target).load_file(path, "cpu", None).run

    for shape in [(2, 3, 64, 96), (1, 3, 33, 47)]:
        given = chance.normal(size=shape).astype(np.float32)
        with torch.no_grad():
            expected = subject.model(torch.from_numpy(given)).numpy()
        assert np.abs(run(given) - expected).mean() < 0.15 * expected.std()
