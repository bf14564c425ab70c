"""timm's models as encoders: parity with timm, what is refused and how, and how far they see."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch
from timm.layers.conv2d_same import conv2d_same

from unetexp.component import decode, override
from unetexp.compute.distributed import synchronise_batch_norm
from unetexp.errors import ConfigError
from unetexp.models.decoders import Decoder
from unetexp.models.encoders import Encoder, Timm, TimmEncoder
from unetexp.models.factory import create_segmentation_model
from unetexp.models.layout import SameConv2d
from unetexp.models.receptive_field import receptive_radius_px
from unetexp.models.unet import build_unet
from unetexp.training.batches.whole_images import Limits
from unetexp.training.config import TrainConfig

SWIN = "swin_tiny_patch4_window7_224"


def unet(name):
    torch.manual_seed(0)
    return build_unet(Timm(name=name, weights="none"), Decoder(), num_classes=2, in_channels=3)


def meta_unet(name):
    with torch.device("meta"):
        return unet(name)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tf_efficientnet_lite0", {}),
        ("mobilenetv3_small_100", {}),
        ("mobilenetv4_conv_small", {}),
        ("convnext_atto", {}),
        ("regnety_002", {}),
        (SWIN, {"strict_img_size": False}),
        ("resnet18", {}),
    ],
)
def test_features_are_timms(name, options):
    reference = timm.create_model(name, features_only=True, **options).eval()
    whole = timm.create_model(name, **options).state_dict()
    encoder = TimmEncoder(name).eval()
    names = encoder.state_dict().keys()
    assert names <= whole.keys()  # its own names, not those that features_only makes of them
    values = reference.state_dict().values()
    encoder.load_state_dict(dict(zip(names, values, strict=True)))
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features = [feature for feature in encoder(image)[1:] if feature.shape[1]]
        for feature, expected in zip(features, reference(image), strict=True):
            if name == SWIN:
                expected = expected.permute(0, 3, 1, 2)
            torch.testing.assert_close(feature, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"kind": "tim"}, r"^encoder\.kind: 'tim' is not a choice\. Did you mean 'timm'\?"),
        (
            {"kind": "timm", "name": "convnext_ato"},
            r"^encoder\.name: .*Did you mean 'convnext_atto'",
        ),
        ({"kind": "timm", "name": "convnext_tiny.in"}, r"^encoder\.name: .*Did you mean 'convnext"),
        ({"name": "convnext_atto"}, r"^encoder\.name: .* set encoder\.kind=timm"),
        ({"kind": "timm", "name": "vit_tiny_patch16_224"}, r"^encoder\.name: .*encoder\.kind=vit"),
        ({"kind": "timm", "name": "levit_128"}, "stride 16, 32, 64 and none of 4, 8"),
        ({"kind": "timm", "name": "coatnet_pico_rw_224"}, "images of a single size"),
        ({"kind": "timm", "name": "xception41"}, "not those of a chain"),
        ({"kind": "timm", "name": 3}, r"^encoder\.name: 3"),
        ({"name": ["resnet18"]}, r"^encoder\.name: \['resnet18'\]"),
        ({"kind": "timm", "freeze": "stage4"}, r"^encoder\.freeze: 'stage4' .*'stage3'"),
        ({"kind": "timm", "frezee": "all"}, r"^encoder\.frezee: .*Did you mean 'freeze'"),
    ],
)
def test_mistakes_are_named(tree, message):
    for kind_of, wrong, where in ((Encoder, tree, "encoder"), (TrainConfig, {"encoder": tree}, "")):
        with pytest.raises(ConfigError, match=f"(?m){message}"):
            decode(kind_of, wrong, where)


def test_a_change_of_kind_keeps_what_is_shared_and_takes_the_new_kinds_name():
    own = {"name": "resnet50", "weights": "none", "freeze": "stage2", "lr_scale": 0.5}
    for tree in (own, {"kind": "resnet", **own}):
        changed = override(TrainConfig, {"encoder": tree}, {"encoder.kind": "timm"})
        encoder = decode(Encoder, changed["encoder"])
        assert encoder == Timm(weights="none", freeze="stage2", lr_scale=0.5)
        assert encoder.name == "tf_efficientnet_lite0"
    changes = {"encoder.name": "convnext_atto", "encoder.kind": "timm"}
    named = override(TrainConfig, {"encoder": own}, changes)
    assert named["encoder"] == {**own, "kind": "timm", "name": "convnext_atto"}


def test_a_change_of_kind_drops_a_value_that_the_new_kind_does_not_take():
    vit = {"kind": "vit", "name": "test_vit", "freeze": "block1", "weights": "none"}
    changed = override(TrainConfig, {"encoder": vit}, {"encoder.kind": "timm"})
    assert changed["encoder"] == {"kind": "timm", "weights": "none"}


def test_a_model_is_created_from_timms_name():
    model = create_segmentation_model(3, pretrained=False, encoder="tf_efficientnet_lite0")
    assert isinstance(model.encoder, TimmEncoder)
    assert model.eval()(torch.zeros(1, 3, 20, 33)).shape == (1, 3, 20, 33)


def test_normalisation_is_timms():
    assert Timm(name="tf_efficientnet_lite0").mean_and_std == ((0.5,) * 3, (0.5,) * 3)
    assert Timm(name="convnext_atto").mean_and_std[0] == (0.485, 0.456, 0.406)


def test_a_config_of_another_family_does_not_load_timm():
    code = (
        "import sys; from unetexp.training.config import TrainConfig; "
        "from unetexp.component import decode; from unetexp.models.encoders import Encoder; "
        "decode(Encoder, {'name': 'resnet18'}); assert 'timm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_same_padding_is_timms(kernel, stride):
    convolution = SameConv2d(3, 4, kernel, stride=stride)
    image = torch.randn(2, 3, 8, 12)
    expected = conv2d_same(image, convolution.weight, convolution.bias, (stride, stride))
    torch.testing.assert_close(convolution(image), expected)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv4_conv_small"])
def test_no_pixel_outside_the_receptive_field_changes_a_logit(name):
    model = unet(name).double().eval()
    radius = receptive_radius_px(model)
    width = -(-(radius + 64) // 32) * 32
    image = torch.randn(1, 3, 32, width, dtype=torch.float64)
    other = image.clone()
    other[..., 0] += 10
    with torch.no_grad():
        changed = (model(other) - model(image)).abs().amax(dim=(0, 1, 2)) > 1e-12
    assert not changed[radius + 1 :].any()
    assert changed[: radius // 4].all()


@pytest.mark.parametrize("name", ["efficientnet_b0", "regnety_002", SWIN, "convnextv2_atto"])
def test_a_model_that_sees_the_whole_image_says_so(name):
    assert receptive_radius_px(meta_unet(name)) is None


def test_a_model_that_sees_the_whole_image_is_validated_in_tiles_with_a_wide_overlap():
    limits = Limits.of(meta_unet("efficientnet_b0"), 2)
    assert (limits.stride, limits.overlap) == (32, 640)
    assert limits.overlap == Limits.of(meta_unet("convnext_atto"), 2).overlap


def test_images_are_grouped_by_the_size_that_windows_need():
    limits = Limits.of(meta_unet("maxvit_rmlp_pico_rw_256"), 2)
    assert limits.padded((100, 300)) == (256, 512)


def test_synchronised_batch_norm_keeps_its_activation():
    encoder = TimmEncoder("tf_efficientnet_lite0").eval()
    image = torch.randn(1, 3, 32, 32)
    names = encoder.state_dict().keys()
    with torch.no_grad():
        expected = encoder(image)
        for _ in range(2):
            synchronise_batch_norm(encoder)
            for feature, reference in zip(encoder(image), expected, strict=True):
                torch.testing.assert_close(feature, reference)
    assert encoder.state_dict().keys() == names
