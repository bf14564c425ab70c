"""The U-Net computes what a plainly written one does: logits, gradients, batch-norm statistics."""

from __future__ import annotations

from itertools import cycle
from typing import get_args

import pytest
import torch
from torch import nn

from tests.support.plain_unet import PlainUNet, frozen_parts
from unetexp.models.decoders import Upsampling
from unetexp.models.encoders import FreezeLevel
from unetexp.models.factory import create_segmentation_model
from unetexp.models.unet import freeze_encoder

DECODERS = ("classic", "slim")  # of which there is a plain U-Net
UPSAMPLINGS = get_args(Upsampling)
LEVELS = get_args(FreezeLevel)
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def disturbed(model):
    """Batch norms as training leaves them: no scale of one, no shift of zero."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 1.5),
            ):
                nn.init.uniform_(tensor, low, high)
    return model


def pair(
    decoder="slim", upsampling="conv_transpose", freeze="none", encoder="resnet18", channels=3
):
    """Our model and the plain one with equal weights, in double precision."""
    torch.manual_seed(0)
    ours = create_segmentation_model(
        3,
        pretrained=False,
        encoder=encoder,
        decoder=decoder,
        upsampling=upsampling,
        in_channels=channels,
    )
    freeze_encoder(disturbed(ours), freeze)
    plain = PlainUNet(encoder, decoder, upsampling, channels, 3)
    plain.load_state_dict(ours.state_dict())
    plain.freeze(freeze)
    return ours.double(), plain.double()


def images(height, width, channels=3, dtype=torch.float64):
    return torch.rand(2, channels, height, width, dtype=dtype)


def assert_learns_alike(ours, plain, image):
    """One step's logits and gradients are equal, and so is the state afterwards."""
    ours.train(), plain.train()
    logits, expected = ours(image), plain(image)
    torch.testing.assert_close(logits, expected)
    weights = torch.rand_like(expected)
    for result in (logits, expected):
        (result * weights).sum().backward()
    gradients = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    assert gradients.keys() == {n for n, p in ours.named_parameters() if p.grad is not None}
    for name, parameter in ours.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(dict(ours.state_dict()), dict(plain.state_dict()))


FROZEN = list(zip(cycle(DECODERS), cycle(LAYOUTS + LAYOUTS[::-1]), LEVELS * 2, strict=False))


@pytest.mark.parametrize(("decoder", "layout", "level"), FROZEN, ids=str)
def test_every_freeze_level(decoder, layout, level):
    ours, plain = pair(decoder, freeze=level)
    before = {n: t.clone() for n, t in ours.encoder.state_dict().items()}
    assert_learns_alike(ours.to(memory_format=layout), plain, images(40, 33))
    for name, tensor in ours.encoder.state_dict().items():
        if name.split(".")[0] in frozen_parts(level):
            assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_every_upsampling(upsampling, layout):
    ours, plain = pair("slim", upsampling)
    assert_learns_alike(ours.to(memory_format=layout), plain, images(64, 32))


def test_bottlenecks():
    ours, plain = pair(encoder="resnet50", freeze="stage2")
    assert_learns_alike(ours.to(memory_format=torch.channels_last), plain, images(64, 64))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("channels", [1, 4, 9])
def test_other_channels(channels, layout):
    ours, plain = pair(channels=channels)
    ours.to(memory_format=layout)
    assert_learns_alike(ours, plain, images(33, 64, channels).to(memory_format=layout))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_size(layout):
    ours, plain = pair(freeze="stage2")
    ours.eval().to(memory_format=layout), plain.eval()
    with torch.no_grad():
        for height, width in [(1, 1), (1, 97), (31, 2), (32, 64), (33, 32), (97, 5)]:
            image = images(height, width)
            torch.testing.assert_close(ours(image), plain(image))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(("decoder", "level"), [("classic", "none"), ("slim", "all")])
def test_single_precision_and_bf16(decoder, layout, level):
    ours, plain = pair(decoder, freeze=level)
    image = images(40, 33, dtype=torch.float32)
    with torch.no_grad():
        expected = plain.eval()(image.double())
        ours = ours.float().to(memory_format=layout).eval()
        torch.testing.assert_close(ours(image).double(), expected, rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            logits, plainly = ours(image), plain.float()(image)
    assert logits.dtype == torch.bfloat16
    error = (logits.double() - expected).square().mean()
    assert error <= 1.5 * (plainly.double() - expected).square().mean()


def test_an_image_that_needs_gradients_gets_them_through_frozen_parts():
    ours, plain = pair(freeze="all")
    given = [images(32, 40).requires_grad_() for _ in range(1)] * 2
    gradients = [
        torch.autograd.grad(model.eval()(image).square().sum(), image)[0]
        for model, image in zip((ours, plain), given, strict=True)
    ]
    torch.testing.assert_close(*gradients)
