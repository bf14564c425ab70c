"""State dicts of other libraries, wrappers and our own models, loaded into encoders."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import nn

from tests.support.encoder_weights import assert_is, encoder_of, loaded, resnet18_state
from unetexp.errors import CheckpointError
from unetexp.models.decoders import Decoder
from unetexp.models.encoders import Timm, ViT
from unetexp.models.unet import build_unet
from unetexp.models.weights.resolution import load_encoder_weights, resolve_weights


@pytest.fixture(scope="module")
def resnet18():
    return resnet18_state()


def prefixed(state, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


BESIDE = {
    "decoder.blocks.0.conv1.0.weight": torch.zeros(2),
    "segmentation_head.0.bias": torch.ones(1),
}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: prefixed(s, "module."),
        lambda s: prefixed(s, "encoder.") | BESIDE,  # segmentation_models_pytorch
        lambda s: prefixed(prefixed(s, "encoder.") | BESIDE, "module."),
        lambda s: prefixed(s, "model.backbone."),
        lambda s: prefixed(s, "_orig_mod."),
        lambda s: {"model": s, "epoch": 1, "optimizer": {"lr": 0.1}},
        lambda s: {"state_dict": prefixed(s, "module."), "arch": "resnet18"},
        lambda s: {n: t for n, t in s.items() if not n.startswith("fc.")},
        lambda s: {**s, "fc.weight": torch.zeros(5, 512), "fc.bias": torch.zeros(5)},
    ],
)
def test_wrapped_state_dicts(tmp_path, resnet18, wrap):
    file = tmp_path / "mine.pth"
    torch.save(wrap(resnet18), file)
    resolve_weights(encoder_of(file))
    assert_is(loaded(encoder_of(file)), resnet18)


def shaken(model):
    """Weights and statistics that are all different."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    for name, parameter in model.named_parameters():
        if "layer_scale" in name:
            nn.init.uniform_(parameter)
    return model.eval()


def features(encoder, images):
    model = build_unet(encoder, Decoder(kind="slim"), num_classes=2, in_channels=3)
    load_encoder_weights(model, encoder)
    with torch.no_grad():
        return model.encoder.eval()(images)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("efficientnet_b0", "efficientnet_b0"),
        ("convnext_tiny", "convnext_tiny"),
        ("mobilenet_v2", "mobilenetv2_100"),
        ("resnet18", "resnet18"),
    ],
)
def test_torchvisions_weights_in_timms_models(tmp_path, theirs, ours):
    """timm's head on our last feature gives torchvision's logits."""
    model = shaken(torchvision.models.get_model(theirs, weights=None))
    state = model.state_dict()
    file = tmp_path / "tv.pth"
    torch.save(state, file)
    images = torch.randn(1, 3, 64, 96)
    last = features(Timm(name=ours, weights=str(file)), images)[-1]
    whole = timm.create_model(ours).eval()
    by_order = dict(zip(whole.state_dict(), state.values(), strict=True))
    whole.load_state_dict({n: t.reshape(whole.state_dict()[n].shape) for n, t in by_order.items()})
    with torch.no_grad():
        if hasattr(whole, "conv_head"):
            last = whole.bn2(whole.conv_head(last))
        torch.testing.assert_close(whole.forward_head(last), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "convnext_atto", "resnet18"])
def test_timms_models_with_features_only(tmp_path, name):
    """As in segmentation_models_pytorch: `encoder.model.`, and `stages_0` for `stages.0`."""
    model = shaken(timm.create_model(name, features_only=True))
    file = tmp_path / "smp.pth"
    torch.save(prefixed(model.state_dict(), "encoder.model.") | BESIDE, file)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = model(images)
    given = features(Timm(name=name, weights=str(file)), images)[1:]
    for ours, theirs in zip(reversed(given), reversed(expected), strict=False):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_our_own_model_starts_another(tmp_path):
    torch.manual_seed(3)
    trained = build_unet(Timm(weights="none"), Decoder(kind="slim"), num_classes=4, in_channels=3)
    file = tmp_path / "model.safetensors"
    save_file(trained.state_dict(), file)
    found = loaded(Timm(weights=str(file)))
    expected = trained.encoder.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


@pytest.mark.parametrize("file_of", ["resnet34", "mobilenet_v2"])
def test_another_architecture_is_told_with_counts(tmp_path, file_of):
    file = tmp_path / "other.pth"
    torch.save(torchvision.models.get_model(file_of, weights=None).state_dict(), file)
    with pytest.raises(CheckpointError, match=r"\d+ of its 120 tensors match.*unexpected"):
        resolve_weights(encoder_of(file))


def test_a_larger_relative_is_refused(tmp_path):
    file = tmp_path / "lite1.pth"
    torch.save(timm.create_model("tf_efficientnet_lite1").state_dict(), file)
    with pytest.raises(CheckpointError, match=r"of its 288 tensors match.*blocks\.1\.2"):
        resolve_weights(Timm(weights=str(file)))


def test_a_channel_count_that_weights_cannot_serve(tmp_path, resnet18):
    file = tmp_path / "four.pth"
    torch.save({**resnet18, "conv1.weight": torch.randn(64, 4, 7, 7)}, file)
    assert resolve_weights(encoder_of(file), in_channels=4).encoder.weights == str(file)
    with pytest.raises(CheckpointError, match=r"conv1\.weight.*4 channels.*1 channel"):
        resolve_weights(encoder_of(file), in_channels=1)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_position_embeddings_of_another_size_are_resampled(tmp_path, name):
    torch.manual_seed(0)
    large = timm.create_model(name, img_size=288).state_dict()
    file = tmp_path / "288.pth"
    torch.save(large, file)
    expected = checkpoint_filter_fn(dict(large), timm.create_model(name))
    found = loaded(ViT(name=name, weights=str(file)))
    assert found["vit.pos_embed"].shape != large["pos_embed"].shape
    torch.testing.assert_close(found["vit.pos_embed"], expected["pos_embed"])
    assert torch.equal(found["vit.blocks.3.attn.qkv.weight"], large["blocks.3.attn.qkv.weight"])


def test_positions_that_are_no_square_are_refused(tmp_path):
    state = timm.create_model("vit_tiny_patch16_224").state_dict()
    file = tmp_path / "odd.pth"
    torch.save({**state, "pos_embed": torch.zeros(1, 120, 192)}, file)
    with pytest.raises(CheckpointError, match=r"149 of its 150 tensors match.*pos_embed"):
        resolve_weights(ViT(name="vit_tiny_patch16_224", weights=str(file)))
