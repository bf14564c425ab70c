"""The original's weights: parity of logits, and every way in which a state dict can differ."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.support.original_unet import UNetWithResnet50Encoder
from unetexp.errors import CheckpointError, ConfigError
from unetexp.models.factory import create_segmentation_model
from unetexp.models.weights.original import load_original_weights


@pytest.fixture(scope="module")
def original():
    """The reference in eval mode, with biases and statistics that training would have left."""
    torch.manual_seed(0)
    model = UNetWithResnet50Encoder(n_classes=3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model.eval()


@pytest.fixture(scope="module")
def state(original):
    return original.state_dict()


@pytest.fixture(scope="module")
def model():
    return create_segmentation_model(3, pretrained=False).eval()


def test_logits_are_the_originals(original, state, model):
    assert sum(p.numel() for p in original.parameters()) > 147e6
    load_original_weights(model, state)
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = original(image)
        assert expected.std() > 1e-2
        torch.testing.assert_close(model(image), expected, rtol=1e-5, atol=1e-5)


def test_names_from_before_torch_0_4_1_are_taken(state, model):
    old = {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}
    load_original_weights(model, old)


def without(state, name):
    return {n: t for n, t in state.items() if n != name}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: without(s, "bridge.bridge.0.conv.bias"), "1 missing: bridge.bridge.0.conv.bias"),
        (lambda s: without(s, "out.bias"), "1 missing: out.bias"),
        (lambda s: {**s, "extra": torch.zeros(1)}, "1 unexpected: extra"),
        (lambda s: {**s, "out.weight": torch.zeros(7, 64, 1, 1)}, r"\(7, 64, 1, 1\) instead of"),
        (lambda s: {f"module.{n}": t for n, t in s.items()}, r"removeprefix\('module\.'\)"),
        (lambda s: {"epoch": 3, "state_dict": s}, r"checkpoint\['state_dict'\]"),
        (lambda s: {}, "missing"),
        (lambda s: None, "not a state dict"),
    ],
)
def test_a_state_dict_that_differs_is_refused_whole(state, model, spoil, message):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_original_weights(model, spoil(state))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "kind",
    [{"decoder": "slim"}, {"upsampling": "bilinear"}, {"encoder": "resnet18"}, {"in_channels": 1}],
)
def test_a_model_of_another_kind_is_named(state, kind):
    with torch.device("meta"):
        model = create_segmentation_model(3, pretrained=False, **kind)
    with pytest.raises(ConfigError, match=str(next(iter(kind.values())))):
        load_original_weights(model, state)


def test_a_model_of_someone_else_is_named(state):
    with pytest.raises(ConfigError, match="Linear"):
        load_original_weights(nn.Linear(1, 1), state)
