"""Encoders: parity with torchvision's ResNets, declared shapes, and every level of freezing."""

from __future__ import annotations

import copy
from typing import get_args

import pytest
import torch
import torchvision
from torch import nn

from unetexp.component import decode
from unetexp.errors import ConfigError
from unetexp.models.decoders import Decoder
from unetexp.models.encoders import Encoder, FreezeLevel, ResNet, ResNetEncoder, ResNetName
from unetexp.models.unet import build_unet, freeze_encoder

LEVELS = get_args(FreezeLevel)
PARTS = {"stem": ["conv1", "bn1"], "stage1": ["layer1"], "stage2": ["layer2"]}
PARTS |= {"stage3": ["layer3"], "all": ["layer4"]}


def frozen_names(level):
    return {name for part in LEVELS[1 : LEVELS.index(level) + 1] for name in PARTS[part]}


def small_unet(**fields):
    encoder = ResNet(name="resnet18", weights="none", **fields)
    return build_unet(encoder, Decoder(), num_classes=2, in_channels=3)


def batch_norm_state(module):
    return {n: t.clone() for n, t in module.state_dict().items() if "running" in n}


@pytest.mark.parametrize("name", get_args(ResNetName))
def test_channels_and_strides_are_as_declared(name):
    with torch.device("meta"):
        encoder = ResNetEncoder(name, in_channels=2)
        features = encoder(torch.empty(1, 2, 64, 96))
    shapes = [
        (1, c, 64 // s, 96 // s) for c, s in zip(encoder.channels, encoder.strides, strict=True)
    ]
    assert [tuple(feature.shape) for feature in features] == shapes


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_features_are_torchvisions(name):
    resnet = torchvision.models.get_model(name).eval()
    encoder = ResNetEncoder(name).eval()
    state = {n: t for n, t in resnet.state_dict().items() if not n.startswith("fc.")}
    encoder.load_state_dict(state, strict=True)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        logits = resnet.fc(encoder(image)[-1].mean(dim=(2, 3)))
        torch.testing.assert_close(logits, resnet(image))


@pytest.mark.parametrize("level", LEVELS)
def test_a_frozen_part_stays_as_it_was_and_the_rest_learns(level):
    model = small_unet()
    freeze_encoder(model, level)
    frozen = frozen_names(level)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    model.train()
    model(torch.randn(2, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    for name, part in model.encoder.named_children():
        is_frozen = name in frozen
        if is_frozen:
            assert not any(module.training for module in part.modules())
        for parameter in part.parameters():
            assert (parameter.grad is None) == is_frozen
            assert (parameter not in optimizer.state) == is_frozen
    for name, tensor in model.state_dict().items():
        is_frozen = name.startswith("encoder.") and name.split(".")[1] in frozen
        assert torch.equal(tensor, before[name]) == is_frozen, name


@pytest.mark.parametrize("level", LEVELS[1:])
def test_frozen_survives_train_eval_and_copies(level):
    model = small_unet(freeze=level)
    for again in (model.train(), model.eval().train(), copy.deepcopy(model).train()):
        again.encoder.train()
        modes = {name: part.training for name, part in again.encoder.named_children()}
        assert {name for name, training in modes.items() if not training} == frozen_names(level)
    model.eval()
    assert not any(module.training for module in model.modules())


def test_dropout_in_a_frozen_part_is_off():
    model = small_unet()
    model.encoder.layer1.append(nn.Dropout(0.5))
    freeze_encoder(model, "stage1")
    assert not model.train().encoder.layer1[-1].training


def test_thawing_makes_all_of_it_learn_again():
    model = small_unet(freeze="all").train()
    before = batch_norm_state(model.encoder)
    freeze_encoder(model, "none")
    assert all(module.training for module in model.modules())
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    after = batch_norm_state(model.encoder)
    assert not any(torch.equal(after[name], before[name]) for name in before)


def test_thawing_in_eval_mode_stays_in_eval_mode():
    model = small_unet(freeze="all").eval()
    freeze_encoder(model, "stem")
    assert not any(module.training for module in model.modules())


def test_freezing_later_drops_gradients_that_an_optimiser_would_still_use():
    model = small_unet()
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    freeze_encoder(model, "all")
    assert all(p.grad is None for p in model.encoder.parameters())
    assert model.head.weight.grad is not None


def test_freezing_mistakes_are_named():
    with pytest.raises(ConfigError, match="Did you mean 'stage2'"):
        freeze_encoder(small_unet(), "stage22")
    with pytest.raises(ConfigError, match="Linear has no encoder"):
        freeze_encoder(nn.Linear(1, 1), "stem")


@pytest.mark.parametrize("level", LEVELS)
def test_encoder_round_trip(level):
    thaw = None if level == "none" else 3
    encoder = ResNet(weights="some/file.pth", freeze=level, thaw_epoch=thaw, lr_scale=0.1)
    assert decode(Encoder, encoder.tree()) == encoder


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"name": "resnet51"}, r"encoder\.name: 'resnet51' .*Did you mean 'resnet50'"),
        ({"weights": "imagnet"}, r"encoder\.weights: 'imagnet' .*Did you mean 'imagenet'"),
        ({"weights": "weights.zip"}, r"path of a \.pth, \.pt, \.safetensors file"),
        ({"weights": ""}, r"encoder\.weights: ''"),
        ({"freeze": "stage4"}, r"encoder\.freeze: 'stage4'"),
        ({"thaw_epoch": 3}, "nothing to thaw"),
        ({"thaw_epoch": 0, "freeze": "all"}, r"encoder\.thaw_epoch: 0"),
        ({"lr_scale": 0}, r"encoder\.lr_scale: 0"),
        ({"lr_scale": 1.5}, r"encoder\.lr_scale: 1\.5"),
        ({"frozen": "all"}, r"encoder\.frozen: there is no such setting"),
    ],
)
def test_configuration_mistakes_are_named(tree, message):
    with pytest.raises(ConfigError, match=message):
        decode(Encoder, tree, "encoder")
