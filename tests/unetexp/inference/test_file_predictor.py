"""An exported file without torch: the answers of `Predictor`, one by one and together."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unetexp.compute.enlarging import enlarged
from unetexp.errors import UserError
from unetexp.inference.file_predictor import FilePredictor, highest
from unetexp.inference.predictor import Predictor
from unetexp.models.decoders import Decoder
from unetexp.models.encoders import ResNet
from unetexp.models.saved_model import ModelSpec
from unetexp.runtimes.description import Description
from unetexp.runtimes.runtime import Runtime

RNG = np.random.default_rng(0)
SPEC = ModelSpec(
    class_names=("background", "cell", "nucleus"),
    in_channels=3,
    image_max=255,
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
    encoder=ResNet(name="resnet18", weights="none"),
    decoder=Decoder(),
)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SPEC.build().eval()


@pytest.fixture(scope="module")
def runtime(network):
    return in_a_runtime(network)


def in_a_runtime(network, **changes):
    """The network behind the interface of exported files."""

    @torch.inference_mode()
    def run(images):
        return network(torch.from_numpy(images)).numpy()

    description = Description(
        format="onnx",
        precision="fp32",
        model=SPEC.of_images().model_copy(update=changes),
        size_multiple=network.encoder.size_multiple,
        receptive_radius_px=None,
    )
    return Runtime(Path("model.onnx"), description, "cpu", "torch", run)


def giving_label_maps(runtime):
    """As a file that was exported with --preprocessing."""

    def run(raw):
        normalised = (raw.transpose(0, 3, 1, 2).astype(np.float32) / 255 - 0.5) / 0.25
        return runtime(normalised.astype(np.float32)).argmax(axis=1).astype(np.uint8)

    description = runtime.description.model_copy(update={"preprocessing": True})
    return dataclasses.replace(runtime, description=description, run=run)


def picture(height, width, dtype=np.uint8):
    return RNG.integers(0, np.iinfo(dtype).max, (3, height, width), dtype=dtype)


def reference(runtime, image, **tiles):
    predictor = Predictor(runtime, runtime.description.model, **tiles)
    return predictor.probabilities(torch.from_numpy(image)).numpy()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_one_image_of_any_size(runtime, dtype):
    for size in ((1, 1), (33, 64), (70, 47)):
        image = picture(*size, dtype)
        expected = reference(runtime, image)
        (found,) = FilePredictor(runtime).probabilities([image])
        np.testing.assert_allclose(found, expected, atol=1e-5)
        (labels,) = FilePredictor(runtime).labels([image])
        assert (labels == found.argmax(axis=0)).all()


def test_a_large_image_in_tiles(runtime):
    image, tiles = picture(150, 100), FilePredictor(runtime, tile_px=64)
    assert tiles.padded_size(image) is None
    (found,) = tiles.probabilities([image])
    np.testing.assert_allclose(found, reference(runtime, image, tile_px=64), atol=1e-5)


def test_images_of_one_padded_size_together(runtime):
    images, predictor = (
        [picture(*size) for size in ((40, 64), (64, 33), (64, 64))],
        FilePredictor(runtime),
    )
    assert {predictor.padded_size(image) for image in images} == {(64, 64)}
    for found, image in zip(predictor.probabilities(images), images, strict=True):
        np.testing.assert_allclose(found, reference(runtime, image), atol=1e-5)


def test_images_at_a_working_size(network):
    runtime = in_a_runtime(network, resize=48)
    predictor = FilePredictor(runtime)
    images = [picture(90, 120), picture(180, 240)]
    assert len({predictor.padded_size(image) for image in images}) == 1
    for found, image in zip(predictor.probabilities(images), images, strict=True):
        np.testing.assert_allclose(found, reference(runtime, image), atol=1e-5)


def test_a_file_that_gives_label_maps(runtime):
    runtime = giving_label_maps(runtime)
    predictor, images = FilePredictor(runtime), [picture(40, 50), picture(64, 33)]
    for found, image in zip(predictor.labels(images), images, strict=True):
        model = Predictor(runtime, runtime.description.model)
        assert (found == model.labels(torch.from_numpy(image)).numpy()).all()
    with pytest.raises(UserError, match="gives label maps only"):
        predictor.probabilities(images)


def test_the_model_in_pytorch_predicts_together_what_it_predicts_alone(network):
    predictor = Predictor(network, SPEC)
    images = [torch.from_numpy(picture(*size)) for size in ((40, 64), (64, 33))]
    for found, image in zip(predictor.logits_of(images), images, strict=True):
        torch.testing.assert_close(found, predictor.logits(image), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(9, 14), (3, 4), (21, 5), (64, 80)])
def test_enlarging_is_that_of_torch(size):
    scores = RNG.normal(size=(4, 9, 14)).astype(np.float32)
    parts = [part for _, part in enlarged(scores, size)]
    expected = F.interpolate(
        torch.from_numpy(scores)[None], size=size, mode="bilinear", align_corners=False
    )[0]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), expected, atol=1e-5)


def test_the_highest_score_is_that_of_argmax():
    scores = RNG.integers(0, 5, (7, 30, 40)).astype(np.float32)
    assert (highest(scores) == scores.argmax(axis=0)).all()
