"""The peers are what they are called: equal weights give equal logits, losses and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.peers.loops import Combination, Loop, given_batch
from benchmarks.peers.ours import GivenStep, our_config
from benchmarks.peers.rounds import Spread, interleaved, ratio
from benchmarks.peers.unets import WIDTHS, RebuiltUnet, freeze_as_users_do, smp_version
from unetexp.models.decoders import Decoder
from unetexp.models.encoders import ResNetEncoder

CPU, CLASSES = torch.device("cpu"), 3


@pytest.fixture(scope="module")
def rebuilt():
    torch.manual_seed(0)
    return RebuiltUnet(CLASSES)


@pytest.fixture(scope="module")
def batch():
    return given_batch(2, 64, CLASSES, CPU)


@pytest.mark.skipif(smp_version() is None, reason="segmentation_models_pytorch is not installed")
def test_rebuilt_unet_is_smps(rebuilt, batch):
    import segmentation_models_pytorch as smp

    theirs = smp.Unet("resnet50", encoder_weights=None, classes=CLASSES)
    rebuilt.load_state_dict(theirs.state_dict())  # strict: equal names and shapes
    outcomes = []
    for model in (theirs, rebuilt):
        model.zero_grad()
        logits = model.train()(batch.images)
        loss = F.cross_entropy(logits, batch.labels)
        loss.backward()
        outcomes.append((logits.detach(), loss.detach(), model.encoder.conv1.weight.grad))
    for one, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_rebuilt_unet_has_smps_size_and_shape(rebuilt, batch):
    parameters = sum(p.numel() for p in RebuiltUnet(4).parameters())
    assert parameters == 32_521_540  # of smp 0.6.0's Unet("resnet50", classes=4)
    assert rebuilt.eval()(batch.images).shape == (2, CLASSES, 64, 64)


def test_rebuilt_unet_has_our_encoder_and_slim_widths(rebuilt):
    ours = ResNetEncoder("resnet50")
    ours.load_state_dict(rebuilt.encoder.state_dict())  # strict
    image = torch.randn(1, 3, 64, 64)
    encoder = rebuilt.encoder.eval()
    stem = encoder.maxpool(encoder.relu(encoder.bn1(encoder.conv1(image))))
    deepest = encoder.layer4(encoder.layer3(encoder.layer2(encoder.layer1(stem))))
    torch.testing.assert_close(ours.eval()(image)[-1], deepest, rtol=1e-4, atol=1e-5)
    assert Decoder(kind="slim").widths_over(2048) == WIDTHS


def test_a_plain_loop_trains_as_adamw_does(batch):
    torch.manual_seed(0)
    model, reference = (nn.Conv2d(3, CLASSES, 3, padding=1) for _ in range(2))
    reference.load_state_dict(model.state_dict())
    loop = Loop(model, batch)
    optimizer = torch.optim.AdamW(reference.parameters(), lr=1e-4)
    for _ in range(2):
        loop()
        optimizer.zero_grad()
        F.cross_entropy(reference(batch.images), batch.labels).backward()
        optimizer.step()
    torch.testing.assert_close(model.weight, reference.weight)


def test_a_tuned_loop_learns_the_same(batch):
    losses = []
    for tuned in (False, True):
        torch.manual_seed(0)
        model = nn.Conv2d(3, CLASSES, 3, padding=1)
        layout = "channels_last" if tuned else "contiguous"
        loop = Loop(model, batch, Combination("fp32", layout), tuned=tuned)
        for _ in range(3):
            loop()
        losses.append(F.cross_entropy(model(batch.images), batch.labels))
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)


def test_users_freezing_leaves_the_rest_to_learn(rebuilt):
    freeze_as_users_do(rebuilt, "stage1")
    learning = {n for n, p in rebuilt.encoder.named_parameters() if p.requires_grad}
    assert {name.partition(".")[0] for name in learning} == {"layer2", "layer3", "layer4"}
    freeze_as_users_do(rebuilt, "all")
    assert not any(p.requires_grad for p in rebuilt.encoder.parameters())
    rebuilt.requires_grad_(True)


def test_our_step_on_given_tensors_learns(tiny_data):
    batch = given_batch(2, 32, tiny_data.num_classes, CPU)
    config = our_config(Combination(), px=32, batch=2, encoder="resnet18")
    step = GivenStep(config, tiny_data, batch)
    step.state.optimizer.param_groups[0]["lr"] = 1e-3

    def loss():
        return F.cross_entropy(step.state.model(batch.images), batch.labels).item()

    before = loss()
    for _ in range(8):
        step()
    assert loss() < before


@pytest.fixture(scope="module")
def tiny_data():
    from benchmarks.peers.images import made_dataset

    with made_dataset(2, (48, 48), classes=3) as data:
        yield data


def test_arms_take_turns_and_ratios_are_paired():
    order = []

    def arm(name, seconds):
        values = iter([99.0, *seconds])  # the first round warms up

        def a_round():
            order.append(name)
            return next(values)

        return a_round

    times = interleaved({"slow": arm("slow", [2, 30, 6]), "fast": arm("fast", [1, 10, 3])}, 3)
    assert order == ["slow", "fast", "slow", "fast", "fast", "slow", "slow", "fast"]
    assert times == {"slow": [2, 30, 6], "fast": [1, 10, 3]}
    assert ratio(times, "slow", "fast", 1.5).spread == Spread(median=2, low=2, high=2.5)
