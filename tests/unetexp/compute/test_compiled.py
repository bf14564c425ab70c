"""The compiled forward pass: the same figures, and a word to the user where it fails."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from unetexp.compute.compiled import TrainForward, share_cache
from unetexp.compute.measured import compile_pays
from unetexp.errors import UserError


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))


def run(forward, network, images):
    network.zero_grad()
    logits = forward(network, images)
    logits.square().sum().backward()
    return logits.detach(), [p.grad for p in network.parameters() if p.grad is not None]


def test_compiled_equals_eager_also_after_freezing_and_thawing(network, tmp_path):
    compiled, eager = TrainForward("default", tmp_path, "aot_eager"), TrainForward("none", tmp_path)
    names = list(network.state_dict())
    for frozen in (False, True, False):
        network[0].requires_grad_(not frozen)
        network[1].train(not frozen)
        images = torch.randn(2, 3, 8, 8)
        start = {name: value.clone() for name, value in network.state_dict().items()}
        logits, gradients = run(compiled, network, images)
        network.load_state_dict(start)
        expected, expected_gradients = run(eager, network, images)
        torch.testing.assert_close(logits, expected)
        torch.testing.assert_close(gradients, expected_gradients)
    assert list(network.state_dict()) == names
    assert compiled.failure is None


def failing(*_):
    raise RuntimeError("the kernel does not compile")


def test_where_compiling_fails_the_network_is_called_as_it_is(network, tmp_path):
    forward, images = TrainForward("default", tmp_path, failing), torch.randn(2, 3, 8, 8)
    with pytest.raises(RuntimeError) as caught:
        forward(network, images)
    assert forward.give_up(caught.value)
    assert "compile: default" in forward.failure and "does not compile" in forward.failure
    assert forward.mode == "none"
    torch.testing.assert_close(forward(network, images), network(images))


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), UserError("x"), RuntimeError("x")]
)
def test_other_errors_are_not_of_compiling(error, tmp_path):
    assert not TrainForward("default", tmp_path).give_up(error)


@pytest.mark.parametrize(
    ("steps", "compile_s", "pays"), [(1000, 60, True), (1000, 120, False), (100, 60, False)]
)
def test_compiling_pays_if_the_steps_save_more_than_it_takes(steps, compile_s, pays):
    assert compile_pays(0.3, 0.2, compile_s, steps) == pays
    assert not compile_pays(0.2, 0.3, 0.0, steps)


def test_the_cache_is_a_private_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    share_cache(tmp_path / "a" / "compiled")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "a" / "compiled")
    assert (tmp_path / "a" / "compiled").stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(UserError, match="written by others"):
        share_cache(tmp_path / "open")


def test_a_folder_that_the_user_chose_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/chosen")
    share_cache(tmp_path / "compiled")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/chosen"
    assert not (tmp_path / "compiled").exists()
