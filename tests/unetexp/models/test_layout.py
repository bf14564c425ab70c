"""How images lie in memory: casting, padding and channels; on a CPU and on CUDA without a GPU."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from unetexp.models.decoders import DecoderKind, UpConvolution
from unetexp.models.factory import create_segmentation_model
from unetexp.models.layout import (
    AlignedConv2d,
    PointwiseConv2d,
    align_channels,
    channel_multiple,
    computed_dtype,
    is_channels_last,
    lay_out,
    repeat_border,
)
from unetexp.models.unet import freeze_encoder

LAST = torch.channels_last


class Calls(TorchDispatchMode):
    """The operators that ran, with their tensors."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.made.append((func.overloadpacket.__name__, args))
        return func(*args, **(kwargs or {}))

    def of(self, name):
        return [args for made, args in self.made if made == name]


def small(decoder: DecoderKind = "slim", channels=3):
    return create_segmentation_model(
        3, pretrained=False, encoder="resnet18", decoder=decoder, in_channels=channels
    )


@contextmanager
def bf16_on_cuda():
    """As torch.autocast, which switches itself off where there is no GPU."""
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", True)
    yield
    torch.set_autocast_enabled("cuda", False)
    torch.clear_autocast_cache()


def in_channels_last(model):
    """As `to(memory_format=...)`, which cannot change fake parameters."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.ndim == 4:
                laid_out = parameter.detach().contiguous(memory_format=LAST)
                setattr(module, name, nn.Parameter(laid_out))
    return model


def calls_on_fake_cuda(model_options, size, level="none"):
    with FakeTensorMode(), torch.device("cuda"):
        model = in_channels_last(small(**model_options)).train()
        freeze_encoder(model, level)
        image = torch.empty(2, model.encoder.channels[0], *size)
        with Calls() as calls, bf16_on_cuda():
            logits = model(image)
        assert logits.shape == (2, 3, *size)
    return calls


@pytest.mark.parametrize("level", ["none", "stem", "stage2", "all"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("decoder", ["classic", "slim"])
def test_on_cuda_every_convolution_is_16_bit_channels_last_and_aligned(decoder, channels, level):
    calls = calls_on_fake_cuda({"decoder": decoder, "channels": channels}, (64, 96), level)
    convolutions = calls.of("convolution")
    assert len(convolutions) > 30
    for image, weight, *_ in convolutions:
        assert image.dtype == weight.dtype == torch.bfloat16
        assert image.shape[1] % 8 == 0
    # without cuDNN fake convolutions return contiguous features: only the image tells
    stem, last_skip = convolutions[0][0], calls.of("cat")[-1][0][1]
    assert is_channels_last(stem) and is_channels_last(last_skip)
    assert stem.shape[1] == last_skip.shape[1] == 8
    assert all(t.dtype == torch.bfloat16 for args in calls.of("cat") for t in args[0])
    assert not [name for name, _ in calls.made if "replication" in name]


def test_on_cuda_borders_are_padded_in_16_bits_and_stay_channels_last():
    calls = calls_on_fake_cuda({}, (50, 33))
    assert [args[0].dtype for args in calls.of("replication_pad3d")] == [torch.bfloat16]
    image, *_ = calls.of("convolution")[0]
    assert image.shape == (2, 8, 64, 64)
    assert is_channels_last(image)


@pytest.mark.parametrize("layout", [LAST, torch.contiguous_format], ids=str)
def test_no_padding_where_none_is_needed(layout):
    model = small().to(memory_format=layout).eval()
    with torch.no_grad(), Calls() as calls:
        model(torch.rand(2, 3, 64, 32))
        assert not [name for name, _ in calls.made if "pad" in name]
        model(torch.rand(2, 3, 64, 33))
        assert [name for name, _ in calls.made if "pad" in name]


def test_a_frozen_encoder_runs_no_batch_norm_and_has_no_graph():
    model = small().train()
    freeze_encoder(model, "all")
    with Calls() as calls:
        features = model.encoder(torch.rand(2, 3, 32, 32))
    assert not [name for name, _ in calls.made if "norm" in name]
    assert not any(feature.requires_grad for feature in features)


@pytest.mark.parametrize("channels", [1, 3, 8, 19, 67])
def test_aligned_channels_change_no_result_and_no_gradient(channels):
    convolution = AlignedConv2d(channels, 4, kernel_size=3, padding=1).double()
    image = torch.rand(2, channels, 6, 5, dtype=torch.float64)
    aligned = align_channels(image, 8)
    assert aligned.shape[1] == -(-channels // 8) * 8
    assert torch.equal(aligned[:, :channels], image)
    assert not aligned[:, channels:].any()
    expected = F.conv2d(image, convolution.weight, convolution.bias, padding=1)
    torch.testing.assert_close(convolution(aligned), expected)
    torch.testing.assert_close(convolution(image), expected)
    given = torch.rand_like(expected)
    gradients = [
        torch.autograd.grad((result * given).sum(), convolution.weight)[0]
        for result in (convolution(aligned), expected)
    ]
    torch.testing.assert_close(*gradients)


def test_a_wrong_number_of_channels_is_still_an_error():
    for channels in (2, 4, 16):
        with pytest.raises(RuntimeError, match="channels"):
            AlignedConv2d(3, 4, kernel_size=3)(torch.rand(1, channels, 5, 5))


def test_channels_are_aligned_on_cuda_alone():
    assert channel_multiple(torch.device("cuda")) == 8
    assert channel_multiple(torch.device("cpu")) == 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", [LAST, torch.contiguous_format], ids=str)
def test_borders_are_repeated_in_the_same_layout(layout, channels):
    image = torch.rand(2, channels, 5, 7)
    laid_out = lay_out(image, torch.empty(4, 4, 3, 3).to(memory_format=layout))
    assert is_channels_last(laid_out) == (layout is LAST)
    padded = repeat_border(laid_out, right=4, below=30)
    torch.testing.assert_close(padded, F.pad(image, (0, 4, 0, 30), mode="replicate"))
    assert is_channels_last(padded) == (layout is LAST)


def test_an_image_that_lies_well_is_not_copied():
    weight = torch.empty(4, 4, 3, 3)
    image = torch.rand(2, 3, 5, 7)
    assert lay_out(image, weight) is image
    last = image.to(memory_format=LAST)
    assert lay_out(last, weight.to(memory_format=LAST)) is last


def test_the_type_is_autocasts_where_it_is_on():
    image, wide = torch.rand(1), torch.rand(1, dtype=torch.float64)
    assert computed_dtype(image) is torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert computed_dtype(image) is torch.bfloat16
        assert computed_dtype(wide) is torch.float64
    assert computed_dtype(image.to("meta")) is torch.float32


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("layout", [LAST, torch.contiguous_format], ids=str)
def test_a_pointwise_convolution_is_a_convolution(layout, stride):
    convolution = PointwiseConv2d(6, 4, kernel_size=1, stride=stride).to(memory_format=layout)
    image = torch.rand(2, 6, 5, 8).to(memory_format=layout)
    expected = F.conv2d(image, convolution.weight, convolution.bias, stride=stride)
    result = convolution(image)
    torch.testing.assert_close(result, expected)
    assert is_channels_last(result) == (layout is LAST)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (9, 10)], ids=str)
@pytest.mark.parametrize("layout", [LAST, torch.contiguous_format], ids=str)
def test_an_up_convolution_is_a_transposed_convolution(layout, size):
    convolution = UpConvolution(6, 4).to(memory_format=layout)
    image = torch.rand(2, 6, *size).to(memory_format=layout)
    expected = F.conv_transpose2d(image, convolution.weight, convolution.bias, stride=2)
    result = convolution(image)
    torch.testing.assert_close(result, expected)
    given = torch.rand_like(expected)
    for mine, reference in zip(
        torch.autograd.grad((result * given).sum(), list(convolution.parameters())),
        torch.autograd.grad((expected * given).sum(), list(convolution.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference)
