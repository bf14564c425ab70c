"""Weights from local files, the first convolution's channels, and the input they expect."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.encoder_weights import assert_is, encoder_of, loaded, resnet18_state
from unetexp.errors import CheckpointError, ConfigError, WeightsUnavailableError
from unetexp.models.encoders import ResNet
from unetexp.models.weights.resolution import (
    adapt_filters,
    input_normalization,
    resolve_weights,
    untrained_warning,
)


@pytest.fixture(scope="module")
def resnet18():
    return resnet18_state()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors", ".PTH"])
@pytest.mark.parametrize("with_classifier", [True, False])
def test_local_files(tmp_path, monkeypatch, resnet18, suffix, with_classifier):
    state = {n: t for n, t in resnet18.items() if with_classifier or not n.startswith("fc.")}
    file = tmp_path / f"mine{suffix}"
    save = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    save(state, file)
    monkeypatch.chdir(tmp_path)
    settled, notice = resolve_weights(encoder_of(file.name))
    assert (settled.weights, notice) == (str(file), None)
    assert_is(loaded(settled), resnet18)


def test_a_local_file_from_before_torch_0_4_1(tmp_path, resnet18):
    file = tmp_path / "old.pth"
    torch.save({n: t for n, t in resnet18.items() if "num_batches" not in n}, file)
    assert_is(loaded(encoder_of(file)), resnet18)


class Opaque:
    pass


def renamed(state, change):
    return {change(name): tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: {n: t for n, t in s.items() if n != "bn1.bias"}, r"1 missing: bn1\.bias"),
        (lambda s: {n: t for n, t in s.items() if n != "conv1.weight"}, r"missing: conv1\.weight"),
        (lambda s: {**s, "extra": torch.zeros(1)}, "1 unexpected: extra"),
        (lambda s: {**s, "conv1.weight": torch.zeros(64, 3, 3, 3)}, r"\(64, 3, 3, 3\) instead"),
        (lambda s: {**s, "conv1.weight": torch.zeros(())}, r"conv1\.weight \(\) instead"),
        (lambda s: {**s, "conv1.weight": torch.full((64, 3, 7, 7), torch.nan)}, "NaN"),
        (lambda s: {"weights": s, "epoch": 1}, r"checkpoint\['weights'\]"),
        (lambda s: renamed(s, "mine.{}".format), "missing.*unexpected"),
        (lambda s: {1: torch.zeros(1)}, "names to tensors"),
        (lambda s: {}, "missing"),
        (lambda s: torch.zeros(3), "not a state dict"),
        (lambda s: {**s, "x": Opaque()}, "run code"),
    ],
)
def test_local_files_that_do_not_fit_are_refused(tmp_path, resnet18, spoil, message):
    file = tmp_path / "mine.pth"
    torch.save(spoil(resnet18), file)
    with pytest.raises(CheckpointError, match=message) as raised:
        resolve_weights(encoder_of(file))
    assert str(file) in str(raised.value)
    with pytest.raises(CheckpointError, match=message):
        loaded(encoder_of(file))


def test_a_file_of_another_architecture(tmp_path):
    file = tmp_path / "mine.pth"
    torch.save(torchvision.models.resnet34().state_dict(), file)
    with pytest.raises(CheckpointError, match=r"as weights of resnet18.*unexpected"):
        resolve_weights(encoder_of(file))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"damaged", b"PK\x03\x04 damaged", bytes(64)])
def test_damaged_files_are_named(tmp_path, suffix, content):
    file = tmp_path / f"damaged{suffix}"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=str(file)):
        resolve_weights(encoder_of(file))


def test_a_file_that_is_not_there(tmp_path):
    for missing in (tmp_path / "no.pth", tmp_path):
        with pytest.raises(WeightsUnavailableError, match="no such weights file"):
            resolve_weights(ResNet.model_construct(weights=str(missing), name="resnet18"))


@pytest.mark.parametrize("in_channels", [1, 2, 3, 4, 6])
def test_first_convolution_for_any_channels(in_channels):
    rgb = torch.randn(64, 3, 7, 7)
    filters = adapt_filters(rgb, in_channels)
    assert filters.shape == (64, in_channels, 7, 7)
    grey = torch.randn(1, 1, 32, 32)
    expected = torch.conv2d(grey.expand(-1, 3, -1, -1), rgb)
    response = torch.conv2d(grey.expand(-1, in_channels, -1, -1), filters)
    torch.testing.assert_close(response, expected, rtol=1e-4, atol=1e-4)


@given(
    in_channels=st.integers(1, 12),
    given_channels=st.sampled_from([1, 3]),
    kernel=st.sampled_from([1, 3, 4, 7]),
    padding=st.integers(0, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_the_response_to_a_grey_image_is_kept(in_channels, given_channels, kernel, padding, seed):
    generator = torch.Generator().manual_seed(seed)
    filters = torch.randn(4, given_channels, kernel, kernel, generator=generator)
    grey = torch.rand(1, 1, 9, 8, generator=generator)
    expected, response = (
        F.conv2d(grey.expand(-1, weight.shape[1], -1, -1), weight, stride=2, padding=padding)
        for weight in (filters, adapt_filters(filters, in_channels))
    )
    torch.testing.assert_close(response, expected, rtol=1e-5, atol=1e-5)


def test_each_channel_has_filters_of_its_own():
    filters = adapt_filters(torch.randn(4, 3, 3, 3), 5)
    assert torch.equal(filters[:, 0], filters[:, 3]) and torch.equal(filters[:, 1], filters[:, 4])
    assert not torch.equal(filters[:, 0], filters[:, 1])
    two = adapt_filters(torch.randn(4, 3, 3, 3), 2)
    assert not torch.equal(two[:, 0], two[:, 1])


def test_a_local_file_for_grey_images_and_for_rgb(tmp_path, resnet18):
    rgb, grey = tmp_path / "rgb.pth", tmp_path / "grey.pth"
    summed = resnet18["conv1.weight"].sum(1, keepdim=True)
    torch.save(resnet18, rgb)
    torch.save({**resnet18, "conv1.weight": summed}, grey)
    assert torch.equal(loaded(encoder_of(rgb), in_channels=1)["conv1.weight"], summed)
    assert torch.equal(loaded(encoder_of(grey), in_channels=1)["conv1.weight"], summed)
    with pytest.raises(CheckpointError, match=r"\(64, 1, 7, 7\) instead of \(64, 3, 7, 7\)"):
        loaded(encoder_of(grey), in_channels=3)


def test_random_weights_frozen_are_warned_of():
    assert untrained_warning(encoder_of("none")) is None
    assert untrained_warning(encoder_of("imagenet", freeze="all")) is None
    warning = resolve_weights(encoder_of("none", freeze="stage2", thaw_epoch=4)).warning
    assert "encoder.freeze=stage2 freezes random weights until epoch 4" in warning


def test_auto_has_to_be_settled_first():
    with pytest.raises(ConfigError, match="resolve_weights"):
        loaded(encoder_of("auto"))


def test_normalization_is_torchvisions():
    transforms = torchvision.models.ResNet50_Weights.IMAGENET1K_V2.transforms()
    rgb = input_normalization(ResNet(), 3)
    assert (list(rgb.mean), list(rgb.std)) == (transforms.mean, transforms.std)
    grey = input_normalization(ResNet(), 1)
    assert grey.mean == pytest.approx((sum(transforms.mean) / 3,))
    assert grey.std == pytest.approx((sum(transforms.std) / 3,))
