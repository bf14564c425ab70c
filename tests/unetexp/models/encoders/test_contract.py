"""What every encoder keeps to, whatever its family: shapes, sizes, channels, freezing, copies."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from unetexp.component import decode
from unetexp.models.decoders import Decoder
from unetexp.models.encoders import Encoder
from unetexp.models.unet import build_unet, freeze_encoder

ENCODERS = [  # other families add theirs
    {"kind": "resnet", "name": "resnet18"},
    {"kind": "resnet", "name": "resnet50"},
    {"kind": "resnet", "name": "resnext50_32x4d"},
    {"kind": "timm", "name": "tf_efficientnet_lite0"},
    {"kind": "timm", "name": "efficientnet_b0"},
    {"kind": "timm", "name": "convnext_atto"},
    {"kind": "timm", "name": "mobilenetv3_small_100"},
    {"kind": "timm", "name": "mobilenetv4_conv_small"},
    {"kind": "timm", "name": "regnety_002"},
    {"kind": "timm", "name": "swin_tiny_patch4_window7_224"},
    {"kind": "timm", "name": "maxvit_rmlp_pico_rw_256"},
    {"kind": "vit", "name": "test_vit"},
    {"kind": "vit", "name": "vit_small_patch8_224"},
    {"kind": "vit", "name": "vit_small_patch14_reg4_dinov2"},
    {"kind": "vit", "name": "vit_tiny_patch16_dinov3_qkvb"},
]
SLOW_TO_EXPORT = ("swin_tiny_patch4_window7_224", "maxvit_rmlp_pico_rw_256")
COARSE = ["none", "stem", "stage1", "stage2", "stage3", "all"]  # of every family

each_encoder = pytest.mark.parametrize("tree", ENCODERS, ids=lambda tree: tree["name"])


def settings(tree, **fields):
    return decode(Encoder, {"weights": "none", **tree, **fields}, "encoder")


def unet(tree, in_channels=3, **fields):
    torch.manual_seed(0)
    encoder = settings(tree, **fields)
    return build_unet(encoder, Decoder(), num_classes=2, in_channels=in_channels)


def side_of(model, least=32):
    """A side that needs no padding."""
    return max(least, model.encoder.size_multiple)


def frozen_parameters(encoder, level):
    levels = list(encoder.parts)
    prefixes = [name for one in levels[: levels.index(level) + 1] for name in encoder.parts[one]]
    return {
        name
        for name in dict(encoder.state_dict())
        if any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
    }


def exported():
    for tree in ENCODERS:
        marks = [pytest.mark.slow] if tree["name"] in SLOW_TO_EXPORT else []
        yield pytest.param(tree, id=tree["name"], marks=marks)


# Shapes ------------------------------------------------------------------------------------------


@each_encoder
@pytest.mark.parametrize("in_channels", [1, 2, 3, 5])
def test_channels_and_strides_are_as_declared(tree, in_channels):
    with torch.device("meta"):
        encoder = settings(tree).build(in_channels)
        side = encoder.size_multiple
        features = encoder(torch.empty(2, in_channels, side, 2 * side))
    assert encoder.channels[0] == in_channels
    assert [tuple(feature.shape) for feature in features] == [
        (2, channels, side // stride, 2 * side // stride)
        for channels, stride in zip(encoder.channels, encoder.strides, strict=True)
    ]
    assert all(encoder.channels[2:])


@each_encoder
@pytest.mark.parametrize("size", [(1, 1), (33, 70), (64, 31), (45, 300)], ids=str)
def test_any_height_and_width(tree, size):
    with torch.device("meta"):
        model = unet(tree).eval()
        assert model(torch.empty(1, 3, *size)).shape == (1, 2, *size)


@each_encoder
def test_the_first_convolutions_are_named(tree):
    with torch.device("meta"):
        encoder = settings(tree).build(5)
    for name in encoder.first_convolutions:
        assert encoder.get_submodule(name).weight.shape[1] == 5


@each_encoder
def test_the_settings_of_a_family(tree):
    encoder = settings(tree, freeze="stage1", thaw_epoch=2, lr_scale=0.5)
    assert decode(Encoder, encoder.tree()) == encoder
    mean, std = encoder.mean_and_std
    assert len(mean) == len(std) == 3
    assert all(0 <= value <= 1 for value in mean) and all(0 < value <= 1 for value in std)


# Freezing ----------------------------------------------------------------------------------------


@each_encoder
def test_all_parameters_belong_to_exactly_one_level(tree):
    with torch.device("meta"):
        encoder = settings(tree).build(3)
    seen = []
    for names in encoder.parts.values():
        for name in names:
            part = encoder.get_part(name)
            seen += [part] if isinstance(part, nn.Parameter) else list(part.parameters())
    for name in encoder.always_learning:
        seen += encoder.get_submodule(name).parameters()
    assert len(seen) == len(set(seen)) == len(list(encoder.parameters()))
    assert set(COARSE) <= set(encoder.parts)
    assert next(iter(encoder.parts)) == "none" and list(encoder.parts)[-1] == "all"


@each_encoder
@pytest.mark.parametrize("level", COARSE)
def test_a_frozen_part_stays_as_it_was_and_the_rest_learns(tree, level):
    model = unet(tree)
    freeze_encoder(model, level)
    encoder = model.encoder
    with torch.no_grad():  # some start at zero, and others before them then learn nothing
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    frozen = frozen_parameters(encoder, level)
    before = copy.deepcopy(encoder.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    images = 1 if encoder.size_multiple > 64 else 2
    model.train()
    model(torch.randn(images, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is None) == (name in frozen), name
        assert (parameter not in optimizer.state) == (name in frozen), name
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name in frozen), name


@each_encoder
@pytest.mark.parametrize("level", COARSE[1:])
def test_frozen_survives_train_eval_and_copies(tree, level):
    with torch.device("meta"):
        model = unet(tree, freeze=level)
    for again in (model.train(), model.eval().train(), copy.deepcopy(model).train()):
        encoder = again.encoder
        levels = list(encoder.parts)
        for one in levels[1:]:
            is_frozen = levels.index(one) <= levels.index(level)
            for part in map(encoder.get_part, encoder.parts[one]):
                if isinstance(part, nn.Module):
                    assert {m.training for m in part.modules()} == {not is_frozen}
    model.eval()
    assert not any(module.training for module in model.modules())


@each_encoder
def test_thawing_makes_all_of_it_learn_again(tree):
    model = unet(tree, freeze="all").train()
    freeze_encoder(model, "none")
    model(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@each_encoder
def test_frozen_features_are_those_of_eval_mode(tree):
    encoder = settings(tree).build(3).double()
    side = side_of(unet_of(encoder), 64)
    with torch.no_grad():
        encoder.train()(torch.randn(2, 3, side, side, dtype=torch.float64))  # statistics that count
    image = torch.randn(1, 3, side, side, dtype=torch.float64)
    expected = encoder.eval()(image)
    encoder.freeze("all")
    features = encoder.train()(image)
    if not encoder.always_learning:
        assert not any(feature.requires_grad for feature in features)
    for feature, reference in zip(features, expected, strict=True):
        torch.testing.assert_close(feature, reference)


# Values ------------------------------------------------------------------------------------------


@each_encoder
def test_logits_are_those_of_each_image_alone(tree):
    model = unet(tree).eval()
    images = torch.randn(2, 3, 40, 64)
    with torch.no_grad():
        together = model(images)
        alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@each_encoder
def test_the_layout_changes_no_logits(tree):
    model = unet(tree).eval()
    image = torch.randn(1, 3, 64, 40)
    with torch.no_grad():
        expected = model(image)
        logits = model.to(memory_format=torch.channels_last)(image)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@each_encoder
def test_channels_of_zeros_change_nothing(tree):
    encoder = settings(tree).build(3).eval()
    side = encoder.size_multiple
    image = torch.randn(1, 3, side, side)
    padded = torch.cat([image, torch.zeros(1, 5, side, side)], dim=1)
    with torch.no_grad():
        for feature, expected in zip(encoder(padded)[1:], encoder(image)[1:], strict=True):
            torch.testing.assert_close(feature, expected)


@each_encoder
def test_state_dict_round_trip(tree):
    model, other = unet(tree).eval(), unet(tree).eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
        other.load_state_dict(model.state_dict())
        image = torch.randn(1, 3, 32, 32)
        assert torch.equal(other(image), model(image))


@pytest.mark.parametrize("tree", exported())
def test_exports_with_any_number_of_images(tree):
    model = unet(tree).eval()
    side = side_of(model)
    dynamic = {0: torch.export.Dim.AUTO}
    program = torch.export.export(
        model, (torch.randn(2, 3, side, side),), dynamic_shapes=(dynamic,)
    )
    image = torch.randn(3, 3, side, side)
    torch.testing.assert_close(program.module()(image), model(image), rtol=1e-3, atol=1e-4)


def unet_of(encoder):
    model = nn.Module()
    model.encoder = encoder
    return model
