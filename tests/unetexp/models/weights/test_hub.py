"""timm's weights from the Hugging Face hub: its cache, and hubs that are not there."""

from __future__ import annotations

import socket
import time

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file

from tests.support.encoder_weights import loaded
from unetexp.errors import CheckpointError, WeightsUnavailableError
from unetexp.models.encoders import Timm
from unetexp.models.weights import hub
from unetexp.models.weights.resolution import resolve_weights
from unetexp.models.weights.sources import weights_provenance

NAME, REPOSITORY = "mobilenetv3_small_050", "timm/mobilenetv3_small_050.lamb_in1k"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub, and no proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return tmp_path


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def put(cache, write, revision="abcdef0123456789"):
    """A file in the cache, as the hub's client leaves it there."""
    repository = cache / f"models--{REPOSITORY.replace('/', '--')}"
    folder = repository / "snapshots" / revision
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    write(folder / "model.safetensors")


def test_what_is_in_the_cache_needs_no_network(cache, no_network):
    torch.manual_seed(0)
    state = timm.create_model(NAME).state_dict()
    put(cache, lambda path: save_file(state, path))
    encoder = Timm(name=NAME, weights="imagenet")
    assert resolve_weights(encoder) == (encoder, None)
    assert resolve_weights(encoder, download=False) == (encoder, None)
    settled, notice = resolve_weights(Timm(name=NAME, weights="auto"))
    assert settled == encoder
    assert "imagenet is used" in notice
    found = loaded(settled)
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.items())
    origin = weights_provenance(encoder)
    assert origin.source == f"timm, {REPOSITORY} at revision abcdef012345"
    assert origin.license == "apache-2.0"
    assert len(origin.sha256) == 64


def test_a_damaged_cache_is_named(cache, no_network):
    put(cache, lambda path: path.write_bytes(b"torn"))
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        resolve_weights(Timm(name=NAME))


@pytest.mark.parametrize("download", [True, False])
def test_no_hub(cache, monkeypatch, download):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(hub, "PATIENCE_S", 0.5)
        start = time.monotonic()
        with pytest.raises(WeightsUnavailableError, match=rf"{NAME}.*HF_HOME.*weights=none"):
            resolve_weights(Timm(name=NAME), download=download)
        settled, notice = resolve_weights(
            Timm(name=NAME, weights="auto", freeze="stage1"), download=download
        )
    assert time.monotonic() - start < 4
    assert settled == Timm(name=NAME, weights="none", freeze="stage1")
    assert "RANDOM weights" in notice
    assert "learns nothing" in notice
    assert not list(cache.iterdir())


def test_an_offline_hub_is_not_asked(cache, no_network, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsUnavailableError, match="HF_HUB_OFFLINE is set"):
        resolve_weights(Timm(name=NAME))


def test_the_package_is_named_where_there_is_one(cache, monkeypatch):
    monkeypatch.setattr(hub, "no_answer", lambda url, patience: "no network")
    with pytest.raises(WeightsUnavailableError, match=r"weights=packaged takes those of effici"):
        resolve_weights(Timm(weights="imagenet"))


def test_models_that_timm_has_no_weights_of(cache, no_network):
    with pytest.raises(WeightsUnavailableError, match=r"no pretrained weights of efficientnet_b7"):
        resolve_weights(Timm(name="efficientnet_b7", weights="imagenet"))
