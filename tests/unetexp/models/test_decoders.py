"""Decoders: every kind with every upsampling and attention, widths, supervision, the light one."""

from __future__ import annotations

import copy
from typing import get_args

import pytest
import torch

from tests.support.data_folders import write_folder_dataset
from tests.support.small_config import config_with
from unetexp.component import decode
from unetexp.data import Folder, open_dataset
from unetexp.errors import ConfigError
from unetexp.models.decoders import Attention, Decoder, DecoderKind, ScSE, Upsampling
from unetexp.models.deep_supervision import deep_supervision_of, labels_at
from unetexp.models.encoders import ResNet
from unetexp.models.receptive_field import receptive_radius_px
from unetexp.models.unet import build_unet
from unetexp.training.loop import fit
from unetexp.training.state import TrainState

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


def model_of(classes=3, channels=3, **settings):
    torch.manual_seed(0)
    encoder = ResNet(name="resnet18", weights="none")
    return build_unet(encoder, Decoder(**settings), classes, channels)


@pytest.mark.parametrize("attention", get_args(Attention))
@pytest.mark.parametrize("upsampling", get_args(Upsampling))
@pytest.mark.parametrize("kind", get_args(DecoderKind))
def test_every_combination(kind, upsampling, attention):
    settings = {"kind": kind, "upsampling": upsampling, "attention": attention}
    assert decode(Decoder, Decoder(**settings).tree()) == Decoder(**settings)
    model = model_of(channels=2, width_factor=0.3, **settings)
    image = torch.randn(2, 2, 33, 40)
    logits = model(image)
    assert logits.shape == (2, 3, 33, 40)
    logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(image), model(image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings", [{"kind": "lite"}, {"attention": "scse"}], ids=str)
def test_exports_with_any_size(settings):
    model = model_of(**settings).eval()
    dynamic = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    program = torch.export.export(model, (torch.randn(2, 3, 50, 70),), dynamic_shapes=(dynamic,))
    image = torch.randn(3, 3, 45, 77)
    torch.testing.assert_close(program.module()(image), model(image), rtol=1e-4, atol=1e-5)


def test_scse_is_the_papers_formula():
    block = ScSE(6).double()
    feature = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    w1, w2 = block.squeeze.weight[:, :, 0, 0], block.excite.weight[:, :, 0, 0]
    channel = torch.sigmoid((feature.mean((2, 3)) @ w1.T).clamp(min=0) @ w2.T)
    pixel = torch.sigmoid(torch.einsum("c,nchw->nhw", block.pixel.weight[0, :, 0, 0], feature))
    expected = channel[:, :, None, None] * feature + pixel[:, None] * feature
    torch.testing.assert_close(block(feature), expected)
    assert w1.shape == (3, 6)


def test_with_scse_a_logit_depends_on_the_whole_image():
    assert receptive_radius_px(model_of(attention="scse")) is None
    assert receptive_radius_px(model_of()) is not None


@pytest.mark.parametrize(
    ("settings", "deepest", "widths"),
    [
        ({"kind": "classic"}, 2048, (1024, 512, 256, 128, 64)),
        ({"kind": "classic"}, 320, (160, 80, 40, 24, 8)),
        ({"kind": "slim"}, 512, (256, 128, 64, 32, 16)),
        ({"width_factor": 0.3}, 512, (80, 40, 16, 8, 8)),
        ({"widths": (30, 20, 10, 5, 3)}, 512, (30, 20, 10, 5, 3)),
        ({"widths": (30, 20, 10, 5, 3), "width_factor": 2.0}, 512, (64, 40, 24, 8, 8)),
    ],
)
def test_widths(settings, deepest, widths):
    assert Decoder(**settings).widths_over(deepest) == widths


@pytest.mark.parametrize("widths", [[8, 8, 8, 8], [8, 8, 0, 8, 8]])
def test_wrong_widths_are_named(widths):
    with pytest.raises(ConfigError, match=r"decoder\.widths"):
        decode(Decoder, {"widths": widths}, "decoder")


@pytest.mark.parametrize("kind", get_args(DecoderKind))
def test_widths_that_no_multiple_fits(kind):
    model = model_of(kind=kind, widths=(30, 20, 10, 5, 3), attention="scse", channels=1)
    assert model(torch.randn(2, 1, 40, 32)).shape == (2, 3, 40, 32)


def test_the_light_decoder_learns():
    torch.manual_seed(0)
    model = model_of(kind="lite", classes=2)
    model.encoder.freeze("all")  # what learns is the decoder
    image = torch.randn(2, 3, 64, 64)
    mask = (torch.nn.functional.avg_pool2d(image[:, :1], 9, 1, 4)[:, 0] > 0).long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(image), mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (model(image).argmax(1) == mask).double().mean() > 0.9


class TestDeepSupervision:
    @pytest.fixture(scope="class")
    def data(self, tmp_path_factory):
        root = tmp_path_factory.mktemp("data")
        write_folder_dataset(root, splits={"train": 4, "val": 1}, size=(32, 32), classes=3)
        return open_dataset(Folder(root=str(root)))

    def test_labels_are_the_nearest_and_what_was_added_is_void(self):
        labels = torch.arange(20 * 20).view(1, 20, 20) % 200
        small = labels_at(16, labels, torch.empty(1, 3, 2, 2))
        assert small.tolist() == [[[int(labels[0, 8, 8]), 255], [255, 255]]]
        half = labels_at(2, labels, torch.empty(1, 3, 16, 16))
        assert torch.equal(half[:, :10, :10], labels[:, 1::2, 1::2])

    def test_the_model_is_that_without_it(self):
        plain, supervised = model_of(), model_of(deep_supervision=0.5)
        for (name, one), (other_name, other) in zip(
            plain.state_dict().items(), supervised.state_dict().items(), strict=True
        ):
            assert name == other_name and torch.equal(one, other)
        network = deep_supervision_of(supervised)
        logits, *auxiliary = network(torch.randn(2, 3, 33, 40))
        assert logits.shape == (2, 3, 33, 40)
        assert [tuple(a.shape[2:]) for a in auxiliary] == [(4, 4), (8, 8), (16, 16), (32, 32)]
        assert deep_supervision_of(plain) is None

    @pytest.mark.parametrize("compile_", ["none", "default"])
    def test_resumes_exactly(self, data, compile_, monkeypatch):
        config = config_with(
            **{
                "decoder.deep_supervision": 0.4,
                "decoder.kind": "lite",
                "epochs": 2,
                "accumulation": 2,
                "batch_size": 4,
                "precision": "fp32",
                "compile": compile_,
            }
        )
        whole, stopped, resumed = (TrainState(config, data, CPU) for _ in range(3))
        for state in (whole, stopped, resumed):
            state.forward._backend = "eager"
        before = whole.supervised.heads[0].weight.clone()
        list(fit(config, data, whole))
        next(fit(config, data, stopped))
        resumed.load_state_dict(copy.deepcopy(stopped.state_dict()))
        list(fit(config, data, resumed))
        one, other = whole.network.state_dict(), resumed.network.state_dict()
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert not torch.equal(before, whole.supervised.heads[0].weight)
        assert whole.model.state_dict().keys() == model_of(kind="lite").state_dict().keys()
