"""The counted cost of a model, against counts by hand."""

from __future__ import annotations

import pytest
import torchvision

from unetexp.models.cost import model_cost
from unetexp.models.decoders import Decoder
from unetexp.models.encoders import ResNet
from unetexp.models.unet import build_unet


def test_parameters_are_those_of_the_model():
    encoder, decoder = ResNet(name="resnet18", weights="none"), Decoder(kind="lite")
    model = build_unet(encoder, decoder, 3, 2)
    counted = model_cost(encoder, decoder, 3, 2, 64).parameters
    assert counted == sum(parameter.numel() for parameter in model.parameters())


def test_operations_grow_with_the_area_and_hold_the_encoders():
    encoder, decoder = ResNet(name="resnet18", weights="none"), Decoder()
    small, large = (model_cost(encoder, decoder, 2, 3, side).gflops for side in (224, 448))
    assert large == pytest.approx(4 * small)
    published = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta["_ops"]  # multiply-adds
    assert small > 2 * published
