"""Vision Transformers: parity with timm's, the pyramid, freezing by blocks, layer decay."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.optim import param_groups_layer_decay

from unetexp.component import decode
from unetexp.errors import ConfigError, UserError
from unetexp.models.decoders import Decoder
from unetexp.models.encoders import Encoder, ViT, ViTEncoder
from unetexp.models.encoders.feature_pyramid import resample
from unetexp.models.unet import build_unet, freeze_encoder
from unetexp.models.weights.resolution import load_encoder_weights
from unetexp.training.optim import parameter_groups

TINY = "test_vit"  # timm's own for tests: 6 blocks, 64 channels, patches of 16
FAMILIES = [
    TINY,
    "deit3_small_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "vit_small_patch8_224",
    "vit_small_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3",
    "vit_small_patch32_224",
    "vit_tiny_patch16_224",
]
LEVELS = ["none", "stem", "block1", "stage1", "block2", "stage2", "block4", "stage3", "all"]
FROZEN_BLOCKS = dict(zip(LEVELS, [0, 0, 1, 1, 2, 3, 4, 4, 6], strict=True))


def encoder_of(name=TINY, blocks=2, in_channels=3):
    """An encoder with so many blocks, whose layer scales do not hide what the blocks do."""
    encoder = ViTEncoder(name, in_channels).eval()
    encoder.vit.blocks = encoder.vit.blocks[:blocks]
    for parameter_name, parameter in encoder.named_parameters():
        if "gamma" in parameter_name:
            torch.nn.init.uniform_(parameter, 0.5, 1.0)
    return encoder


def timms(encoder, size):
    """timm's model for images of this one size, with the encoder's weights."""
    model = timm.create_model(encoder.name, num_classes=0, img_size=size).eval()
    model.blocks = model.blocks[: len(encoder.vit.blocks)]
    model.fc_norm = torch.nn.Identity()
    state = encoder.vit.state_dict()
    if "pos_embed" in state:
        state["pos_embed"] = resample_abs_pos_embed(
            state["pos_embed"],
            new_size=model.patch_embed.grid_size,
            old_size=encoder.vit.patch_embed.grid_size,
            num_prefix_tokens=0 if model.no_embed_class else model.num_prefix_tokens,
        )
    model.load_state_dict(state)
    return model


def small_unet(decoder="slim", **fields):
    encoder = ViT(name=TINY, weights="none", **fields)
    return build_unet(encoder, Decoder(kind=decoder), num_classes=2, in_channels=3)


def trained_size(name):
    return timm.create_model(name, num_classes=0).patch_embed.img_size


# Features ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_channels_and_strides_are_as_declared(name):
    with torch.device("meta"):
        encoder = ViTEncoder(name, in_channels=2)
        features = encoder(torch.empty(1, 2, 64, 96))
    shapes = [
        (1, c, 64 // s, 96 // s) for c, s in zip(encoder.channels, encoder.strides, strict=True)
    ]
    assert [tuple(feature.shape) for feature in features] == shapes
    assert encoder.channels[:2] == (2, 0)


@pytest.mark.parametrize("name", [TINY, "deit3_small_patch16_224", "vit_small_patch16_dinov3"])
def test_at_the_trained_size_the_map_is_timms(name):
    encoder, size = encoder_of(name), trained_size(name)
    model, image = timms(encoder, size), torch.randn(1, 3, *size)
    assert torch.equal(
        encoder.vit.state_dict()["patch_embed.proj.bias"], model.patch_embed.proj.bias
    )
    if encoder.vit.pos_embed is not None:
        assert torch.equal(encoder.vit.pos_embed, model.pos_embed)
    with torch.no_grad():
        tokens = model.forward_features(image)[:, model.num_prefix_tokens :]
        torch.testing.assert_close(encoder.feature_map(image).flatten(2).mT, tokens)


@pytest.mark.parametrize("name", FAMILIES)
def test_at_another_size_the_map_is_that_of_timms_model_for_it(name):
    encoder = encoder_of(name)
    size = 2 * encoder.patch, 3 * encoder.patch
    model, image = timms(encoder, size), torch.randn(2, 3, *size)
    with torch.no_grad():
        tokens = model.forward_features(image)[:, model.num_prefix_tokens :]
        torch.testing.assert_close(encoder.feature_map(image).flatten(2).mT, tokens)


def test_the_pyramid_keeps_the_map_and_pools_it():
    encoder, image = encoder_of(), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        feature, (*_, same, pooled) = encoder.feature_map(image), encoder(image)
    assert torch.equal(same, feature)
    assert torch.equal(pooled, F.max_pool2d(feature, 2))


def test_resampled_features_stay_where_they_were():
    columns = 14 * (torch.arange(14) + 0.5)  # centres of patches over 13 x 14 px and 1 px more
    feature = resample(columns.expand(1, 1, 7, 14), patch=14, stride=16)
    assert feature.shape == (1, 1, 6, 12)
    torch.testing.assert_close(feature[0, 0, 0], 16 * (torch.arange(12) + 0.5))


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_small_patch8_224", TINY])
def test_a_size_that_the_patch_does_not_divide_is_padded(name):
    model = build_unet(ViT(name=name, weights="none"), Decoder(), 2, 3).eval()
    model.encoder.vit.blocks = model.encoder.vit.blocks[:1]
    image = torch.randn(1, 3, 45, 77)
    with torch.no_grad():
        logits = model(image)
        padded = model(F.pad(image, (0, 19, 0, 19), mode="replicate"))
    assert logits.shape == (1, 2, 45, 77)
    torch.testing.assert_close(logits, padded[..., :45, :77])


def test_channels_of_zeros_behind_the_images_own_change_nothing():
    encoder, image = encoder_of(in_channels=3), torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        expected, features = encoder(image), encoder(F.pad(image, (0, 0, 0, 0, 0, 5)))
    for feature, same in zip(features[2:], expected[2:], strict=True):
        torch.testing.assert_close(feature, same)


def test_features_lie_in_memory_as_the_image_does():
    encoder, image = encoder_of("vit_small_patch14_dinov2", blocks=1), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = encoder(image)
        last = copy.deepcopy(encoder).to(memory_format=torch.channels_last)
        features = last(image.to(memory_format=torch.channels_last))
    for feature, contiguous in zip(features[2:], expected[2:], strict=True):
        assert contiguous.is_contiguous()
        assert feature.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(feature, contiguous, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        TINY,
        pytest.param("vit_small_patch14_dinov2", marks=pytest.mark.slow),
        pytest.param("vit_small_patch16_dinov3", marks=pytest.mark.slow),
    ],
)
def test_exports_with_any_size(name):
    model = build_unet(ViT(name=name, weights="none"), Decoder(), 2, 3).eval()
    model.encoder.vit.blocks = model.encoder.vit.blocks[:1]
    dynamic = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    program = torch.export.export(model, (torch.randn(2, 3, 50, 70),), dynamic_shapes=(dynamic,))
    for size in ((45, 77), (64, 96)):
        image = torch.randn(3, 3, *size)
        torch.testing.assert_close(program.module()(image), model(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [TINY, "vit_small_patch16_dinov3"])
def test_16_bits_are_near(name):
    encoder, image = encoder_of(name), torch.randn(1, 3, 64, 96)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rounded = encoder(image)
    with torch.no_grad():
        for feature, near in zip(encoder(image)[2:], rounded[2:], strict=True):
            assert (feature - near.float()).abs().max() < 0.1 * feature.abs().max()


def test_one_pixel_left_for_the_bridges_batch_norm_is_a_clear_error():
    image = torch.randn(1, 3, 20, 32)
    small_unet("slim").train()(image)
    with pytest.raises(UserError, match="two or more"):
        small_unet("classic").train()(image)


@pytest.mark.parametrize("name", [TINY, "vit_wee_patch16_reg1_gap_256"])
def test_timms_weights_are_loaded_from_a_file(name, tmp_path):
    theirs = timm.create_model(name, dynamic_img_size=True).eval()
    torch.save(theirs.state_dict(), tmp_path / "vit.pth")
    settings = ViT(name=name, weights=str(tmp_path / "vit.pth"))
    model = build_unet(settings, Decoder(), num_classes=2, in_channels=1).eval()
    load_encoder_weights(model, settings)
    grey = torch.randn(1, 1, 32, 48)
    with torch.no_grad():
        tokens = theirs.forward_features(grey.expand(1, 3, 32, 48))[:, theirs.num_prefix_tokens :]
        feature = model.encoder.feature_map(grey).flatten(2).mT
    torch.testing.assert_close(feature, tokens, rtol=1e-4, atol=1e-5)


# Freezing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_is_of_one_level_or_of_the_pyramid(name):
    with torch.device("meta"):
        encoder = ViTEncoder(name)
    of_levels = [
        parameter
        for parts in encoder.parts.values()
        for part in parts
        for parameter, _ in encoder.named_parameters()
        if parameter == part or parameter.startswith(f"{part}.")
    ]
    others = {parameter for parameter, _ in encoder.named_parameters()} - set(of_levels)
    assert len(set(of_levels)) == len(of_levels)
    assert encoder.always_learning == ("pyramid",)
    assert others == {f"pyramid.{name}" for name, _ in encoder.pyramid.named_parameters()}
    assert ViT(name=name).levels == tuple(encoder.parts)


def expected_frozen(name, level):
    """Whether a parameter of the U-Net over TINY is frozen."""
    if level == "none" or not name.startswith("encoder.vit."):
        return False
    part = name.removeprefix("encoder.vit.")
    if part.startswith("blocks."):
        return int(part.split(".")[1]) < FROZEN_BLOCKS[level]
    return level == "all" or not part.startswith("norm.")


@pytest.mark.parametrize("level", LEVELS)
def test_a_frozen_part_stays_as_it_was_and_the_rest_learns(level):
    model = small_unet(freeze=level)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    model.train()
    model(torch.randn(2, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        frozen = expected_frozen(name, level)
        assert (parameter.grad is None) == frozen, name
        assert torch.equal(parameter, before[name]) == frozen, name
    for number, block in enumerate(model.encoder.vit.blocks):
        assert all(m.training == (number >= FROZEN_BLOCKS[level]) for m in block.modules())


def test_nothing_frozen_has_a_graph():
    encoder, image = small_unet(freeze="all").train().encoder, torch.randn(1, 3, 32, 32)
    assert not encoder.feature_map(image).requires_grad
    assert encoder.feature_map(image.requires_grad_()).requires_grad


def test_thawing_makes_all_of_it_learn_again():
    model = small_unet(freeze="block3").train()
    freeze_encoder(model, "none")
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all(module.training for module in model.modules())


# Layer-wise learning rates -----------------------------------------------------------------------


@pytest.mark.parametrize("name", [TINY, "vit_small_patch14_reg4_dinov2"])
def test_layers_learn_at_the_rates_that_timm_gives_them(name):
    settings = ViT(name=name, weights="none", layer_decay=0.7)
    with torch.device("meta"):
        model = build_unet(settings, Decoder(), num_classes=2, in_channels=3)
        timms = timm.create_model(name, num_classes=10)
    names = {id(parameter): name for name, parameter in timms.named_parameters()}
    expected = {}
    for group in param_groups_layer_decay(
        timms, 0.05, no_weight_decay_list=timms.no_weight_decay(), layer_decay=0.7
    ):
        for parameter in group["params"]:
            expected[names[id(parameter)]] = group["lr_scale"], group["weight_decay"]
    groups = parameter_groups(model, 0.1, 0.05, encoder_lr_scale=0.5)
    found = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(found) == sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    for name, parameter in model.encoder.vit.named_parameters():
        scale, decay = expected[name]
        assert found[id(parameter)] == (pytest.approx(0.1 * 0.5 * scale), decay)
    for parameter in model.encoder.pyramid.parameters():
        assert found[id(parameter)][0] == pytest.approx(0.1 * 0.5)


def test_without_layer_decay_the_groups_are_those_of_other_encoders():
    groups = parameter_groups(small_unet(), 0.1, 0.05, encoder_lr_scale=0.5)
    rates = [(group["lr"], group["weight_decay"]) for group in groups]
    assert rates == [(0.1, 0.0), (0.1, 0.05), (0.05, 0.0), (0.05, 0.05)]


# Settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_encoder_round_trip(level):
    encoder = ViT(name=TINY, weights="none", freeze=level, layer_decay=0.8)
    assert decode(Encoder, encoder.tree()) == encoder


@pytest.mark.parametrize("name", [TINY, "vit_base_patch16_224.dino", "vit_small_patch16_dinov3"])
def test_images_are_normalised_as_the_weights_were_trained(name):
    config = timm.get_pretrained_cfg(name)
    assert ViT(name=name).mean_and_std == (config.mean, config.std)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"name": "vit_smal_patch16_224"}, r"encoder\.name: 'vit_smal.*Did you mean 'vit_small_p"),
        (
            {"name": "vit_relpos_small_patch16_224"},
            r"no plain Vision Transformer: set encoder\.kind=timm",
        ),
        ({"kind": "timm", "name": "vit_tiny_patch16_224"}, r"set encoder\.kind=vit"),
        ({"kind": "resnet", "name": "deit_tiny_patch16_224"}, r"set encoder\.kind=vit"),
        ({"name": "vit_tiny_patch16_224.nobody"}, r"Did you mean 'vit_tiny_patch16_224'"),
        (
            {"freeze": "stage4"},
            r"encoder\.freeze: 'stage4'.*block1 to block12 of vit_small",
        ),
        ({"freeze": "block13"}, r"encoder\.freeze: 'block13' .*has 12 blocks"),
        ({"freeze": "block0"}, r"Give block1 to block12"),
        ({"freeze": "block01"}, r"Give block1 to block12"),
        ({"layer_decay": 0}, r"encoder\.layer_decay: 0"),
        ({"layer_decay": 1.1}, r"encoder\.layer_decay: 1\.1"),
        ({"thaw_epoch": 3}, "nothing to thaw"),
    ],
)
def test_configuration_mistakes_are_named(tree, message):
    with pytest.raises(ConfigError, match=message):
        decode(Encoder, {"kind": "vit", **tree}, "encoder")


def test_a_wrong_name_is_the_only_fault_that_is_reported():
    with pytest.raises(ConfigError) as error:
        decode(Encoder, {"kind": "vit", "name": "vit", "freeze": "block3"}, "encoder")
    assert str(error.value).count("encoder.") == 1
    with pytest.raises(ConfigError, match="Did you mean 'stage2'"):
        freeze_encoder(small_unet(), "stage22")
