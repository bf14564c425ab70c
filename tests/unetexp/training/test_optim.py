"""Optimisers, schedules, parameter groups: parity with torch's own."""

from __future__ import annotations

import copy
import itertools
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from unetexp.component import decode, kinds_of
from unetexp.errors import ConfigError
from unetexp.training.optim import (
    SGD,
    AdamW,
    Constant,
    Cosine,
    CosineAnnealing,
    Optimizer,
    Poly,
    Schedule,
    parameter_groups,
    start_momentum,
)

OPTIMIZERS = kinds_of(Optimizer)
SCHEDULES = kinds_of(Schedule)


class Model(nn.Module):
    """The shape of a segmentation model as far as groups are concerned."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
        self.encoder_like = nn.Conv2d(4, 4, 1)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.head(self.encoder_like(self.encoder(x)))


def seeded_model() -> Model:
    torch.manual_seed(0)
    return Model()


def step(model, optimizer, seed):
    optimizer.zero_grad()
    images = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    model(images).square().mean().backward()
    optimizer.step()


def rates(scheduler, optimizer, steps):
    """The learning rate before each of `steps` steps of torch's `scheduler`."""
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def torch_optimizer(lr=0.4):
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)


# Optimisers and parameter groups ----------------------------------------------------------------


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_optimizer_steps_repeatably_and_survives_json(kind):
    config = decode(Optimizer, {"kind": kind})
    assert decode(Optimizer, json.loads(json.dumps(config.tree()))) == config
    ends = []
    for _ in range(2):
        model = seeded_model()
        before = copy.deepcopy(model.state_dict())
        optimizer = config.build(parameter_groups(model, config.lr, config.weight_decay, 1.0))
        for seed in range(3):
            step(model, optimizer, seed)
        ends.append(model.state_dict())
        assert any(not torch.equal(before[name], ends[-1][name]) for name in before)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize(
    ("config", "reference"),
    [
        (
            AdamW(lr=0.01, weight_decay=0.1, beta1=0.8, beta2=0.9),
            lambda groups: torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.9)),
        ),
        (
            SGD(lr=0.02, weight_decay=0.1, momentum=0.7, nesterov=True),
            lambda groups: torch.optim.SGD(groups, lr=0.02, momentum=0.7, nesterov=True),
        ),
    ],
)
def test_an_optimizer_is_torchs_with_decay_on_weights_alone(config, reference):
    ours, theirs = seeded_model(), seeded_model()
    optimizer = config.build(parameter_groups(ours, config.lr, config.weight_decay, 1.0))
    weights = [p for p in theirs.parameters() if p.ndim > 1]
    others = [p for p in theirs.parameters() if p.ndim <= 1]
    expected = reference(
        [{"params": weights, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    )
    for seed in range(4):
        step(ours, optimizer, seed)
        step(theirs, expected, seed)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_a_fused_optimizer_takes_the_same_steps():
    ends = []
    for fused in (False, True):
        model = seeded_model()
        optimizer = AdamW().build(parameter_groups(model, 1e-3, 1e-4), fused=fused)
        step(model, optimizer, 0)
        ends.append(list(model.parameters()))
    torch.testing.assert_close(ends[0], ends[1])


def test_groups_hold_every_parameter_once_with_its_rate_and_decay():
    model = Model()
    groups = parameter_groups(model, 0.1, 0.01, 0.5)
    found = {id(p): group for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(found) == 7
    for name, parameter in model.named_parameters():
        group = found[id(parameter)]
        rate = 0.05 if name.startswith("encoder.") else 0.1
        assert group["lr"] == group["base_lr"] == pytest.approx(rate)
        norm_or_bias = name.endswith("bias") or name == "encoder.1.weight"
        assert group["weight_decay"] == (0.0 if norm_or_bias else 0.01), name


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_frozen_parameters_hold_no_state_and_can_thaw(kind):
    model = seeded_model()
    model.encoder.requires_grad_(False)
    config = decode(Optimizer, {"kind": kind})
    optimizer = config.build(parameter_groups(model, config.lr, config.weight_decay))
    before = model.encoder[0].weight.clone()
    step(model, optimizer, 0)
    assert not set(optimizer.state) & set(model.encoder.parameters())
    assert torch.equal(model.encoder[0].weight, before)
    model.encoder.requires_grad_(True)
    step(model, optimizer, 1)
    assert set(model.encoder.parameters()) <= set(optimizer.state)
    assert not torch.equal(model.encoder[0].weight, before)


def test_base_rates_survive_saving():
    model = Model()
    saved = AdamW().build(parameter_groups(model, 0.1, 0.0, 0.5)).state_dict()
    fresh = AdamW().build(parameter_groups(model, 0.1, 0.0, 0.5))
    fresh.load_state_dict(saved)
    assert sorted({group["base_lr"] for group in fresh.param_groups}) == [0.05, 0.1]


@pytest.mark.parametrize(
    ("family", "tree", "message"),
    [
        (Optimizer, {"kind": "adam"}, "Did you mean 'adamw'"),
        (Optimizer, {"kind": "adamw", "lr": 0}, "lr: 0 "),
        (Optimizer, {"kind": "adamw", "momentum": 0.9}, "momentum: there is no such setting"),
        (Optimizer, {"kind": "sgd", "nesterov": True, "momentum": 0}, "raise momentum"),
        (Schedule, {"kind": "cosin"}, "Did you mean 'cosine'"),
        (Schedule, {"kind": "cosine", "warmup_epochs": -1}, "warmup_epochs: -1 "),
        (Schedule, {"kind": "cosine_annealing", "t_max": 0}, "t_max: 0 "),
        (Schedule, {"kind": "poly", "power": 0}, "power: 0 "),
    ],
)
def test_mistakes_are_named(family, tree, message):
    with pytest.raises(ConfigError, match=message):
        decode(family, tree)


# Schedules --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_schedule_survives_json(kind):
    schedule = decode(Schedule, {"kind": kind})
    assert decode(Schedule, json.loads(json.dumps(schedule.tree()))) == schedule


@given(
    kind=st.sampled_from(SCHEDULES),
    epochs=st.integers(1, 200),
    share=st.floats(0, 1),
    base_lr=st.floats(1e-6, 10),
)
def test_a_rate_lies_between_nothing_and_the_base(kind, epochs, share, base_lr):
    lr = decode(Schedule, {"kind": kind}).lr(base_lr, share * epochs, epochs)
    assert isinstance(lr, float) and 0 <= lr <= base_lr * (1 + 1e-12)


@pytest.mark.parametrize(
    "schedule", [Cosine(warmup_epochs=0, hold=0), CosineAnnealing(), Poly(), Constant()]
)
def test_without_warm_up_a_schedule_starts_at_the_base_rate(schedule):
    assert schedule.lr(0.3, 0.0, 10) == 0.3


@pytest.mark.parametrize("kind", ["cosine", "poly", "constant"])
def test_warm_up_rises_evenly_and_never_stands_at_zero(kind):
    schedule = decode(Schedule, {"kind": kind, "warmup_epochs": 2})
    found = [schedule.lr(1.0, epoch, 10) for epoch in (0, 0.5, 1, 1.5, 2)]
    gaps = [b - a for a, b in itertools.pairwise(found)]
    assert found[0] == pytest.approx(0.01) and found[-1] == 1.0
    assert gaps == pytest.approx([gaps[0]] * 4)


@pytest.mark.parametrize("kind", ["cosine", "poly", "constant"])
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_run_as_short_as_its_warm_up_only_rises(kind, epochs):
    schedule = decode(Schedule, {"kind": kind, "warmup_epochs": epochs})
    found = [schedule.lr(1.0, tick * epochs / 8, epochs) for tick in range(8)]
    assert found == sorted(found) and found[0] > 0
    assert 0 <= schedule.lr(1.0, epochs, epochs) <= 1


@pytest.mark.parametrize("t_max", [1, 7, 100])
def test_cosine_annealing_is_torchs_also_after_t_max(t_max):
    optimizer = torch_optimizer()
    expected = rates(lr_scheduler.CosineAnnealingLR(optimizer, t_max, eta_min=0.01), optimizer, 230)
    schedule = CosineAnnealing(t_max=t_max, eta_min=0.01)
    found = [schedule.lr(0.4, epoch, 230) for epoch in range(230)]
    assert found == pytest.approx(expected, abs=1e-9)
    assert schedule.lr(0.4, 3.99, 230) == schedule.lr(0.4, 3, 230)


def test_cosine_with_warm_up_is_torchs_linear_then_cosine():
    epochs, warmup, steps, base_lr, least = 8, 2, 5, 0.4, 0.1
    optimizer = torch_optimizer(base_lr)
    linear = lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=warmup * steps)
    cosine = lr_scheduler.CosineAnnealingLR(
        optimizer, (epochs - warmup) * steps, eta_min=least * base_lr
    )
    both = lr_scheduler.SequentialLR(optimizer, [linear, cosine], milestones=[warmup * steps])
    expected = rates(both, optimizer, epochs * steps)
    schedule = Cosine(warmup_epochs=warmup, hold=0, min_factor=least)
    found = [schedule.lr(base_lr, tick / steps, epochs) for tick in range(epochs * steps)]
    assert found == pytest.approx(expected, abs=1e-9)
    assert schedule.lr(base_lr, epochs, epochs) == pytest.approx(least * base_lr)


@pytest.mark.parametrize("power", [0.9, 2.0])
def test_poly_is_torchs_polynomial(power):
    optimizer = torch_optimizer()
    expected = rates(lr_scheduler.PolynomialLR(optimizer, 40, power=power), optimizer, 41)
    found = [Poly(power=power).lr(0.4, tick / 4, 10) for tick in range(41)]
    assert found == pytest.approx(expected, abs=1e-9)


def test_constant_stays():
    assert {Constant().lr(0.2, tick / 3, 10) for tick in range(31)} == {0.2}


@pytest.mark.parametrize("kind", ["cosine", "poly", "constant"])
def test_a_warm_up_is_a_share_of_the_run_or_a_number_of_epochs(kind):
    share = decode(Schedule, {"kind": kind, "warmup": 0.25})
    epochs = decode(Schedule, {"kind": kind, "warmup_epochs": 2})
    assert [share.lr(1.0, tick / 4, 8) for tick in range(33)] == [
        epochs.lr(1.0, tick / 4, 8) for tick in range(33)
    ]
    assert share.warm_up(40) == 10 and epochs.warm_up(40) == 2


def test_a_held_rate_falls_in_the_rest_of_the_run():
    held, plain = Cosine(warmup=0, hold=0.75), Cosine(warmup=0, hold=0)
    assert {held.lr(1.0, tick / 4, 8) for tick in range(25)} == {1.0}
    assert [held.lr(1.0, 6 + tick / 4, 8) for tick in range(9)] == pytest.approx(
        [plain.lr(1.0, tick, 8) for tick in range(9)]
    )


def test_the_head_learns_at_its_own_rate_and_decays_like_the_rest():
    groups = parameter_groups(seeded_model(), 0.1, 0.2, 0.5, 10.0)
    found = sorted((g["base_lr"], round(g["weight_decay"], 9)) for g in groups)
    encoder, decoder, head = [(0.05, 0.0), (0.05, 0.2)], [(0.1, 0.0), (0.1, 0.2)], (1.0, 0.0)
    assert found == [*encoder, *decoder, head, (1.0, 0.02)]


def test_at_the_decoders_rate_the_head_is_in_its_group_as_in_earlier_checkpoints():
    groups = parameter_groups(seeded_model(), 0.1, 0.2, 0.5, 1.0)
    assert [group["base_lr"] for group in groups] == [0.1, 0.1, 0.05, 0.05]


def test_sgd_goes_on_after_a_thaw_as_torch_does_without_its_fused_kernel():
    models = [seeded_model(), seeded_model()]
    for model, fused in zip(models, (True, False), strict=True):
        optimizer = SGD(lr=0.1).build(parameter_groups(model, 0.1, 1e-4), fused=fused)
        model.encoder[0].requires_grad_(False)
        step(model, optimizer, seed=1)
        model.encoder[0].requires_grad_(True)
        start_momentum(optimizer)
        for seed in (2, 3):
            step(model, optimizer, seed)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, other)
