"""Helpers for tests of encoder weights: a small encoder, and the weights loaded into it."""

from __future__ import annotations

import torch
import torchvision

from unetexp.models.decoders import Decoder
from unetexp.models.encoders import ResNet
from unetexp.models.unet import build_unet
from unetexp.models.weights.resolution import load_encoder_weights


def resnet18_state():
    torch.manual_seed(1)
    return torchvision.models.resnet18().eval().state_dict()


def encoder_of(weights, **fields):
    return ResNet(name="resnet18", weights=str(weights), **fields)


def loaded(encoder, in_channels=3):
    model = build_unet(encoder, Decoder(), num_classes=2, in_channels=in_channels)
    load_encoder_weights(model, encoder)
    return model.encoder.state_dict()


def assert_is(state, resnet):
    assert set(resnet) - set(state) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(tensor, resnet[name]) for name, tensor in state.items())
