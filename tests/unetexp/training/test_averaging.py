"""Averaged weights and recomputed batch-norm statistics, against formulas and torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from tests.support.small_config import config_with
from unetexp.models.decoders import Decoder
from unetexp.models.encoders import ResNet
from unetexp.models.unet import build_unet
from unetexp.training.averaging import AveragedWeights, update_batch_norm


def small_unet(freeze="none"):
    torch.manual_seed(0)
    return build_unet(ResNet(name="resnet18", weights="none", freeze=freeze), Decoder(), 3, 3)


def batches(count, size=2):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 3, 64, 64, generator=generator) + i for i in range(count)]


def moved(model, seed):
    """The model after a step: every weight and statistic is another."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=generator))
    return model


class TestAveragedWeights:
    def test_they_follow_the_formula(self):
        model = small_unet()
        average = AveragedWeights(model, 0.3)
        expected = {k: v.double() for k, v in model.state_dict().items() if v.is_floating_point()}
        for n in range(5):
            moved(model, n)
            average.update(model)
            keep = min(0.3, (1 + n) / (10 + n))
            now = model.state_dict()
            expected = {k: keep * v + (1 - keep) * now[k].double() for k, v in expected.items()}
        found = average.module.state_dict()
        for name, value in expected.items():
            torch.testing.assert_close(found[name].double(), value, rtol=1e-5, atol=1e-5, msg=name)

    def test_they_survive_a_checkpoint(self):
        model = small_unet()
        first, second = AveragedWeights(model, 0.9), AveragedWeights(model, 0.9)
        first.update(moved(model, 0))
        second.load_state_dict(first.state_dict())
        for average in (first, second):
            average.update(moved(copy.deepcopy(model), 1))
        pairs = zip(first.module.parameters(), second.module.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)

    def test_a_checkpoint_of_an_earlier_version_fits(self):
        model = small_unet()
        earlier = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
        earlier.update_parameters(moved(model, 0))
        average = AveragedWeights(small_unet(), 0.9)
        average.load_state_dict(earlier.state_dict())
        assert average.updates == 1
        pairs = zip(average.module.parameters(), earlier.module.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)

    def test_the_decay_fits_the_steps(self):
        config = config_with(ema_epochs=0.5, batch_size=4)
        assert config.averaging_decay(80) == pytest.approx(0.9)  # 20 steps an epoch
        assert config_with(ema_decay=0.7).averaging_decay(80) == 0.7
        assert config_with(ema_epochs=None).averaging_decay(80) is None
        assert config_with(ema_epochs=0.01).averaging_decay(80) == 0  # the weights of now


class TestBatchNorm:
    def test_the_statistics_are_those_of_all_batches_together(self):
        norm = nn.Sequential(nn.BatchNorm2d(3))
        given = batches(4)
        update_batch_norm(norm, given)
        whole = torch.cat(given).double()
        mean, var = whole.mean(dim=(0, 2, 3)), whole.var(dim=(0, 2, 3))
        torch.testing.assert_close(norm[0].running_mean.double(), mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(norm[0].running_var.double(), var, rtol=1e-3, atol=1e-3)

    def test_of_one_batch_they_are_torchs(self):
        ours, theirs = small_unet(), small_unet()
        update_batch_norm(ours, batches(1))
        update_bn(batches(1), theirs)
        found = ours.state_dict()
        for name, value in theirs.state_dict().items():
            if "num_batches" not in name:
                torch.testing.assert_close(found[name], value, msg=name)

    def test_what_is_frozen_keeps_its_statistics(self):
        model = moved(small_unet(freeze="stage2"), 0)
        before = copy.deepcopy(model.state_dict())
        update_batch_norm(model, batches(2))
        after = model.state_dict()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed and all("running" in name for name in changed)
        frozen = ("encoder.bn1", "encoder.layer1", "encoder.layer2")
        assert not any(name.startswith(frozen) for name in changed)
        assert any(name.startswith("encoder.layer3") for name in changed)

    def test_training_goes_on_with_its_own_momentum(self):
        model = small_unet()
        momenta = [m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        update_batch_norm(model, batches(1))
        assert momenta == [m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)]

    def test_without_batches_nothing_changes(self):
        model = small_unet()
        before = copy.deepcopy(model.state_dict())
        update_batch_norm(model, [])
        after = model.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
