"""Frozen parts with folded batch norm notice every change, and leave no trace in the model."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from unetexp.compute.distributed import synchronise_batch_norm
from unetexp.models.encoders import ResNetEncoder


def frozen_encoder(level="all"):
    torch.manual_seed(0)
    encoder = ResNetEncoder("resnet18").double().train()
    encoder.freeze(level)
    return encoder


@pytest.fixture
def image():
    torch.manual_seed(1)
    return torch.rand(2, 3, 32, 32, dtype=torch.float64)


def assert_as_unfolded(encoder, image):
    """The deepest feature is what the same modules give one by one."""
    feature = encoder.maxpool(encoder.relu(encoder.bn1(encoder.conv1(image))))
    for stage in (encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4):
        feature = stage(feature)
    torch.testing.assert_close(encoder(image)[-1], feature)


def disturb(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.1)


def shift_statistics(encoder):
    encoder.layer3[0].bn1.running_mean.add_(0.3)


def load(encoder):
    encoder.load_state_dict(ResNetEncoder("resnet18").double().state_dict())


def assign(encoder):
    encoder.load_state_dict(ResNetEncoder("resnet18").double().state_dict(), assign=True)


def replace(encoder):
    encoder.layer2[0].bn1.weight = nn.Parameter(torch.full((128,), 0.5, dtype=torch.float64), False)


def edit_data_and_evaluate(encoder):
    encoder.layer1[0].conv1.weight.data.mul_(2)
    encoder.eval()


def round_to_single(encoder):
    encoder.float().double()


def in_inference_mode(encoder):
    with torch.inference_mode():
        encoder.bn1.bias.add_(0.2)


def synchronise(encoder):
    synchronise_batch_norm(encoder)
    encoder.layer1[0].bn1.running_var.mul_(2)


CHANGES = [
    disturb,
    shift_statistics,
    load,
    assign,
    replace,
    edit_data_and_evaluate,
    round_to_single,
    in_inference_mode,
    synchronise,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(change, image):
    encoder = frozen_encoder()
    assert_as_unfolded(encoder, image)
    change(encoder)
    assert_as_unfolded(encoder, image)


def test_folding_is_done_once(image):
    encoder = frozen_encoder()
    encoder(image)
    made = [id(part) for part in encoder.folded._copies.values()]
    encoder(image)
    assert [id(part) for part in encoder.folded._copies.values()] == made
    assert len(made) == 5


def test_thawing_and_freezing_again(image):
    encoder = frozen_encoder()
    encoder(image)
    encoder.freeze("none")
    encoder(image)[-1].sum().backward()
    torch.optim.SGD(encoder.parameters(), lr=0.1).step()
    encoder.freeze("all")
    assert_as_unfolded(encoder, image)
    encoder.freeze("stage1")
    assert len(encoder(image)) == 6
    assert set(encoder.folded._copies) == {"stem", "stage1"}


def test_types_and_layouts(image):
    encoder = frozen_encoder().float().to(memory_format=torch.channels_last)
    plain = frozen_encoder()
    last = image.float().to(memory_format=torch.channels_last)
    expected = plain(image)[-1]
    torch.testing.assert_close(encoder(last)[-1].double(), expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        feature = encoder(last)[-1]
        assert feature.dtype == torch.bfloat16
        assert feature.is_contiguous(memory_format=torch.channels_last)
        assert (feature - expected).norm() < 0.03 * expected.norm()
    torch.testing.assert_close(encoder(last)[-1].double(), expected, rtol=1e-4, atol=1e-5)
    half = encoder.bfloat16()(last.bfloat16())[-1]
    assert (half - expected).norm() < 0.03 * expected.norm()


def test_state_copies_and_pickles_know_nothing_of_it(image):
    fresh, used = frozen_encoder(), frozen_encoder()
    size = len(pickle.dumps(fresh))
    expected = used(image)[-1]
    assert used.state_dict().keys() == fresh.state_dict().keys()
    assert [name for name, _ in used.named_modules()] == [n for n, _ in fresh.named_modules()]
    assert len(pickle.dumps(used)) == size
    for again in (copy.deepcopy(used), pickle.loads(pickle.dumps(used))):
        torch.testing.assert_close(again(image)[-1], expected)
        disturb(again)
        assert_as_unfolded(again, image)
    torch.testing.assert_close(used(image)[-1], expected)


def test_averaged_weights_follow(image):
    encoder = frozen_encoder()
    averaged = AveragedModel(encoder, use_buffers=True)
    averaged.update_parameters(encoder)
    torch.testing.assert_close(averaged(image)[-1], encoder(image)[-1])
    disturb(encoder)
    shift_statistics(encoder)
    averaged.update_parameters(encoder)
    assert_as_unfolded(averaged.module, image)


def test_after_inference_mode_training_goes_on(image):
    encoder = frozen_encoder("stage2")
    with torch.inference_mode():
        encoder(image)
    encoder(image)[-1].sum().backward()
    assert encoder.layer4[0].conv1.weight.grad is not None


def test_a_model_made_in_inference_mode(image):
    with torch.inference_mode():
        encoder = frozen_encoder().eval()
        assert_as_unfolded(encoder, image)
        disturb(encoder)
        assert_as_unfolded(encoder, image)


def test_hooks_are_called(image):
    encoder = frozen_encoder()
    encoder(image)
    seen = []
    handle = encoder.layer2[0].bn1.register_forward_hook(lambda *_: seen.append("bn1"))
    assert_as_unfolded(encoder, image)
    assert seen == ["bn1", "bn1"]
    handle.remove()
    encoder(image)
    assert len(seen) == 2


def test_other_parameters_for_one_call(image):
    encoder = frozen_encoder()
    encoder(image)
    other = {name: value * 1.1 for name, value in encoder.named_parameters()}
    expected = copy.deepcopy(encoder)
    expected.load_state_dict(other, strict=False)
    features = torch.func.functional_call(encoder, other, (image,))
    torch.testing.assert_close(features[-1], expected(image)[-1])


@pytest.mark.parametrize("level", ["stage2", "all"])
def test_an_exported_graph_holds_the_real_parameters(level):
    encoder = frozen_encoder(level).float().eval()
    program = torch.export.export(encoder, (torch.rand(2, 3, 32, 32),))
    image = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(program.module()(image)[-1], encoder(image)[-1])
    assert "wrap_with_set_grad_enabled" not in str(program.graph)
    assert program.state_dict.keys() == encoder.state_dict().keys()
