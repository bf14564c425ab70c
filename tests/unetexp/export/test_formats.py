"""Every format and precision: any size and batch, the logits of the network, its description."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch

from tests.support.exportable import CLASSES, lively, subject_of
from unetexp.errors import ConfigError, UserError
from unetexp.export.formats import WRITERS, writer_of
from unetexp.models.ensemble import Ensemble
from unetexp.runtimes import openvino_runtime
from unetexp.runtimes.description import Description
from unetexp.runtimes.probe import Probe
from unetexp.runtimes.runtime import format_of, open_runtime

HERE = [each for each in WRITERS if each[0] != "tensorrt" or torch.cuda.is_available()]
FLOATS = [(target, precision) for target, precision in HERE if precision != "int8"]
TARGETS = list(dict.fromkeys(target for target, _ in FLOATS))
QUICK = (("onnx", "fp32"), ("openvino", "fp32"))  # the others in `make test-slow`
SHAPES = [(1, 64, 64), (3, 33, 47), (2, 100, 40), (1, 24, 20), (2, 1, 40), (1, 1, 1)]
ERROR = {"fp32": 1e-4, "fp16": 2e-2}  # of logits between about -10 and 10
OTHERS = [
    ({"kind": "resnet", "name": "resnet18"}, "lite", "bilinear"),
    ({"kind": "timm", "name": "test_resnet"}, "classic", "pixel_shuffle"),
    ({"kind": "timm", "name": "convnext_atto"}, "slim", "nearest"),
    ({"kind": "timm", "name": "mobilenetv3_small_050"}, "slim", "conv_transpose"),
    ({"kind": "vit", "name": "test_vit"}, "slim", "bilinear"),
    ({"kind": "vit", "name": "vit_tiny_patch16_224"}, "lite", "nearest"),
]


def quick_or_slow(values, quick):
    """Parameters, those that are not quick marked as slow."""
    for each in values:
        marks = [] if each in quick else [pytest.mark.slow]
        yield pytest.param(*each, id="-".join(map(str, each)), marks=marks)


@cache
def subject(precision="fp32", preprocessing=False, **options):
    return subject_of(precision=precision, preprocessing=preprocessing, **options)


def describe(subject, target):
    return Description(
        format=target,
        precision=subject.precision,
        preprocessing=subject.preprocessing,
        model=subject.spec,
        size_multiple=subject.model.encoder.size_multiple,
        run_id="0" * 32,
        commit="0123abc",
    )


def written(subject, target, folder):
    """The runtime of the subject's file in `folder`."""
    writer = writer_of(target, subject.precision)
    path = folder / f"model{writer.SUFFIX}"
    writer.write(subject, path)
    writer.describe(path, describe(subject, target).text())
    return open_runtime(path, threads=1)


@torch.no_grad()
def difference(runtime, subject, shape):
    """The largest difference of logits to those of the network."""
    batch, height, width = shape
    generator = torch.Generator().manual_seed(height)
    images = torch.randn(batch, subject.spec.in_channels, height, width, generator=generator)
    expected, found = subject.model(images).numpy(), runtime(images.numpy())
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    return np.abs(found - expected).max()


@pytest.mark.parametrize(("target", "precision"), quick_or_slow(FLOATS, QUICK))
def test_a_file_gives_the_networks_logits_at_any_size(target, precision, tmp_path):
    one = subject(precision)
    runtime = written(one, target, tmp_path)
    for shape in SHAPES:
        assert difference(runtime, one, shape) < ERROR[precision]
    assert format_of(runtime.path) == target
    assert runtime.description == describe(one, target)
    assert runtime.description.model.class_names == CLASSES
    assert runtime.name.split()[-1][0].isdigit()  # a version


@pytest.mark.parametrize(
    ("target", "image_max"), quick_or_slow(product(TARGETS, (255, 4095)), [("openvino", 255)])
)
def test_preprocessing_takes_raw_images_and_gives_label_maps(target, image_max, tmp_path):
    one = subject(preprocessing=True, image_max=image_max)
    runtime = written(one, target, tmp_path)
    depth = np.uint8 if image_max == 255 else np.uint16
    for batch, height, width in SHAPES:
        rng = np.random.default_rng(height)
        raw = rng.integers(0, image_max + 1, (batch, height, width, 3)).astype(depth)
        labels = runtime(raw)
        assert labels.dtype == np.uint8
        mean, std = np.array(one.spec.mean), np.array(one.spec.std)
        given = ((raw / image_max - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
        with torch.no_grad():
            expected = one.model(torch.from_numpy(given)).argmax(dim=1).numpy()
        assert labels.shape == expected.shape
        assert (labels == expected).mean() > 0.999


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("encoder", "decoder", "upsampling"), OTHERS)
def test_other_encoders_and_decoders(target, encoder, decoder, upsampling, tmp_path):
    one = subject_of(encoder, decoder, upsampling)
    runtime = written(one, target, tmp_path)
    for shape in SHAPES:
        assert difference(runtime, one, shape) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "decoder", "upsampling"), OTHERS)
def test_openvinos_16_bits_pass_the_probe_of_a_processor_without(
    encoder, decoder, upsampling, tmp_path, monkeypatch
):
    one = subject_of(encoder, decoder, upsampling, precision="fp16")
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).numpy()
    runtime = written(one, "openvino", tmp_path)
    probe = Probe.of(images, runtime(images), "fp16")
    settings = openvino_runtime._settings
    monkeypatch.setattr(openvino_runtime, "_settings", lambda _, threads: settings("fp32", threads))
    without = open_runtime(runtime.path, threads=1)(images)
    assert probe.difference(without) <= probe.tolerance
    assert np.abs(without - one.model(torch.from_numpy(images)).detach().numpy()).max() < 2e-2


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels(channels, tmp_path):
    one = subject_of(in_channels=channels)
    assert difference(written(one, "onnx", tmp_path), one, (2, 50, 40)) < 1e-4


@pytest.mark.slow
def test_several_models_as_one(tmp_path):
    members = [lively(subject_of().model) for _ in range(2)]
    one = replace(subject(), model=Ensemble(members).eval())
    assert difference(written(one, "onnx", tmp_path), one, (2, 50, 40)) < 1e-4


def test_a_graph_of_one_size_only_is_refused(monkeypatch):
    def fixed(network, example, **_):
        return exact(network, example)

    exact = torch.export.export
    monkeypatch.setattr(torch.export, "export", fixed)
    with pytest.raises(UserError, match="test_efficientnet computes differently at each size"):
        _ = subject_of().program


def test_an_unknown_precision_of_a_format_is_told_with_those_that_it_has():
    with pytest.raises(ConfigError, match="--precision of onnx: 'fp8' is not a choice"):
        writer_of("onnx", "fp8")
