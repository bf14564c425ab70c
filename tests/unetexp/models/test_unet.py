"""The U-Net from outside: sizes, kinds, upsampling, mistakes, the cost of its decoders."""

from __future__ import annotations

import copy
import pickle
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unetexp.component import decode
from unetexp.errors import ConfigError, UserError
from unetexp.models.decoders import Decoder, DecoderKind, Upsampling, make_upsampling
from unetexp.models.encoders import ResNetName
from unetexp.models.factory import create_segmentation_model

DECODERS = get_args(DecoderKind)
UPSAMPLINGS = get_args(Upsampling)


def small(**options):
    options = {"encoder": "resnet18", "decoder": "slim", **options}
    return create_segmentation_model(options.pop("num_classes", 3), pretrained=False, **options)


def on_meta(**options):
    with torch.device("meta"):
        return create_segmentation_model(pretrained=False, **options).eval()


@pytest.fixture(scope="module")
def model():
    return small().eval()


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_every_kind_learns(decoder, upsampling):
    model = small(decoder=decoder, upsampling=upsampling)
    logits = model(torch.randn(2, 3, 33, 40))
    assert logits.shape == (2, 3, 33, 40)
    assert logits.dtype == torch.float32
    logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("encoder", get_args(ResNetName))
def test_every_encoder_with_every_decoder(encoder, decoder):
    model = on_meta(encoder=encoder, decoder=decoder, num_classes=5)
    assert model(torch.empty(1, 3, 70, 31, device="meta")).shape == (1, 5, 70, 31)


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 100), (2, 3), (31, 33), (32, 32), (65, 1), (64, 96)], ids=str
)
def test_any_size_is_the_padded_image_cropped(model, size):
    height, width = size
    image = torch.randn(1, 3, height, width)
    rows = torch.arange(-(-height // 32) * 32).clamp(max=height - 1)
    columns = torch.arange(-(-width // 32) * 32).clamp(max=width - 1)
    with torch.no_grad():
        logits = model(image)
        padded = model(image[:, :, rows][..., columns])
    assert logits.shape == (1, 3, height, width)
    torch.testing.assert_close(logits, padded[..., :height, :width])


@pytest.mark.parametrize("in_channels", [1, 2, 4])
def test_channels_and_classes(in_channels):
    model = small(in_channels=in_channels, num_classes=1).eval()
    assert model(torch.randn(1, in_channels, 20, 20)).shape == (1, 1, 20, 20)


def test_memory_format_and_autocast(model):
    image = torch.randn(2, 3, 40, 50)
    with torch.no_grad():
        expected = model(image)
        last = copy.deepcopy(model).to(memory_format=torch.channels_last)
        logits = last(image.to(memory_format=torch.channels_last))
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            assert (model(image).float() - expected).abs().max() < 0.1 * expected.abs().max()


def test_pickles(model):
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(pickle.loads(pickle.dumps(model))(image), model(image))


def test_exports_with_any_size():
    model = small().eval()
    dynamic = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    program = torch.export.export(model, (torch.randn(2, 3, 50, 70),), dynamic_shapes=(dynamic,))
    for size in ((45, 77), (64, 96)):
        image = torch.randn(3, 3, *size)
        torch.testing.assert_close(program.module()(image), model(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("size", [(1, 1), (20, 32)], ids=str)
def test_one_pixel_left_for_batch_norm_is_a_clear_error(decoder, size):
    model = small(decoder=decoder).train()
    height, width = size
    with pytest.raises(UserError, match=rf"{height}x{width} pixels.*two or more images"):
        model(torch.randn(1, 3, height, width))
    model(torch.randn(2, 3, height, width))
    model(torch.randn(1, 3, height, 33))
    model.eval()(torch.randn(1, 3, height, width))


def test_one_pixel_is_allowed_where_batch_norm_is_frozen():
    slim, classic = small(), small(decoder="classic")
    for model in (slim, classic):
        model.encoder.freeze("all")
    slim(torch.randn(1, 3, 8, 8))
    with pytest.raises(UserError, match="batch norm"):
        classic(torch.randn(1, 3, 8, 8))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 3, 0, 5), (1, 3, 5, 0), (3,)])
def test_images_of_another_shape_are_refused(model, shape):
    with pytest.raises(UserError, match=r"\(N, 3, H, W\)"):
        model(torch.zeros(shape))


def test_integer_images_are_refused(model):
    with pytest.raises(UserError, match=r"uint8.*0\.\.1"):
        model(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


def test_the_cost_is_the_originals_or_a_quarter():
    parameters, flops = {}, {}
    for decoder in DECODERS:
        model = on_meta(num_classes=21, decoder=decoder)
        parameters[decoder] = sum(p.numel() for p in model.parameters())
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 512, 512, device="meta"))
        flops[decoder] = counter.get_total_flops()
    assert parameters["classic"] == pytest.approx(147.8e6, rel=1e-3)
    assert flops["classic"] == pytest.approx(365e9, rel=2e-3)
    assert parameters["slim"] < parameters["classic"] / 4
    assert flops["slim"] < flops["classic"] / 4


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_upsampling_doubles(upsampling):
    module = make_upsampling(upsampling, 6, 4)
    assert module(torch.randn(2, 6, 3, 5)).shape == (2, 4, 6, 10)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_interpolation_is_the_originals_order_swapped(mode):
    module = make_upsampling(mode, 6, 4)
    x = torch.randn(2, 6, 3, 5)
    expected = module[0](nn.Upsample(scale_factor=2, mode=mode)(x))
    torch.testing.assert_close(module(x), expected)


def test_pixel_shuffle_starts_as_nearest():
    module = make_upsampling("pixel_shuffle", 6, 4)
    x = torch.randn(2, 6, 3, 5)
    nearest = F.interpolate(F.conv2d(x, module[0].weight[::4]), scale_factor=2, mode="nearest")
    torch.testing.assert_close(module(x), nearest)
    assert module[0].weight[::4].std(dim=0).min() > 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"encoder": "resnet5"}, r"encoder\.name: 'resnet5' .*Did you mean 'resnet50'"),
        ({"decoder": "clasic"}, "Did you mean 'classic'"),
        ({"upsampling": "bilinea"}, "Did you mean 'bilinear'"),
        ({"num_classes": 0}, "num_classes: 0"),
        ({"num_classes": 2.0}, r"num_classes: 2\.0"),
        ({"num_classes": True}, "num_classes: True"),
        ({"in_channels": -1}, "in_channels: -1"),
        ({"pretrained": "imagenet"}, "pretrained: 'imagenet'"),
    ],
)
def test_mistakes_are_named(wrong, message):
    with pytest.raises(ConfigError, match=message):
        create_segmentation_model(**{"pretrained": False, **wrong})


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_decoder_round_trip(kind, upsampling):
    decoder = Decoder(kind=kind, upsampling=upsampling)
    assert decode(Decoder, decoder.tree()) == decoder
