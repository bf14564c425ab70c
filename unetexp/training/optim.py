"""Optimisers, learning-rate schedules and parameter groups."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from unetexp.component import Component
from unetexp.errors import ConfigError
from unetexp.models.encoders import FeatureEncoder

ParameterGroup = dict[str, Any]

_WARMUP_START = 0.01  # the warm-up's first factor: a first step at 0 would be wasted


class AdamW(Component):
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101)."""

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(1e-3, gt=0, le=10, description="learning rate")
    weight_decay: float = Field(1e-4, ge=0, le=1, description="decay per step, times lr")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the gradient's running mean")
    beta2: float = Field(0.999, ge=0, lt=1, description="decay of its square's running mean")
    head_lr_scale: float = Field(
        30.0,
        gt=0,
        le=1000,
        description="the head's learning rate as a multiple of the decoder's: AdamW moves each "
        "weight by about lr a step, and a 1x1 convolution has few of them to raise the logits with",
    )

    def build(self, groups: list[ParameterGroup], fused: bool = False) -> torch.optim.Optimizer:
        """torch's AdamW on groups from `parameter_groups`; `fused`: one kernel, faster on all."""
        return torch.optim.AdamW(
            groups,
            lr=self.lr,
            betas=(self.beta1, self.beta2),
            weight_decay=self.weight_decay,
            fused=fused or None,
        )


class SGD(Component):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(1e-2, gt=0, le=10, description="learning rate")
    weight_decay: float = Field(1e-4, ge=0, le=1, description="L2 penalty added to the gradient")
    momentum: float = Field(0.9, ge=0, lt=1, description="decay of the velocity; 0: none")
    nesterov: bool = Field(False, description="use Nesterov momentum")
    head_lr_scale: float = Field(
        1.0, gt=0, le=1000, description="the head's learning rate as a multiple of the decoder's"
    )

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ConfigError("nesterov is on and momentum is 0: raise momentum or turn it off.")
        return self

    def build(self, groups: list[ParameterGroup], fused: bool = False) -> torch.optim.Optimizer:
        """torch's SGD on groups from `parameter_groups`; `fused`: one kernel, faster on all."""
        return torch.optim.SGD(
            groups,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            fused=fused or None,
        )


Optimizer = Annotated[AdamW | SGD, Field(discriminator="kind")]


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    encoder_lr_scale: float = 1.0,
    head_lr_scale: float = 1.0,
) -> list[ParameterGroup]:
    """All parameters in groups: encoder, decoder or head, with weight decay or without.

    Parameters of `model.encoder` learn at lr * encoder_lr_scale, times their `lr_factor` where it
    decays by layers, with groups for each layer; those of `model.head` learn at
    lr * head_lr_scale. Biases and the scales of norms (one dimension or none) do not decay, nor
    does the head beyond the others: its decay is divided by the scale. Frozen parameters are
    included, so that they can thaw later; without a gradient they are not updated and have no
    state. Each group has its rate at schedule factor 1 as `base_lr`.
    """
    scales = {"decoder": 1.0, "encoder": encoder_lr_scale}
    if head_lr_scale != 1:
        scales["head"] = head_lr_scale
    encoder = getattr(model, "encoder", None)
    members: dict[tuple[str, float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        part, _, inner = name.partition(".")
        factor, decays = 1.0, parameter.ndim > 1
        if part == "encoder" and isinstance(encoder, FeatureEncoder):
            factor = encoder.lr_factor(inner)
            decays = decays and inner not in encoder.undecayed
        key = (part if part in scales else "decoder", factor, decays)
        members.setdefault(key, []).append(parameter)
    groups = []
    for (part, factor, decays), parameters in sorted(members.items()):
        rate = lr * scales[part] * factor
        decay = weight_decay / max(1.0, scales[part]) if decays else 0.0
        groups.append({"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": decay})
    return groups


def start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give tensors that have thawed since the last step a momentum of 0, as at a run's start.

    torch's fused SGD takes the momentum of all tensors of a group or of none.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        kept = [each for each in group["params"] if _momentum(optimizer, each) is not None]
        for parameter in group["params"] if kept else []:
            if parameter.requires_grad and _momentum(optimizer, parameter) is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _momentum(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> torch.Tensor | None:
    momentum: torch.Tensor | None = optimizer.state[parameter].get("momentum_buffer")
    return momentum


class _WarmedUp(Component):
    """A schedule after a linear warm-up. Stateless: a resumed run needs only its progress."""

    warmup: float = Field(
        0.0, ge=0, le=1, description="share of the epochs in which the rate rises from 1 % to full"
    )
    warmup_epochs: float | None = Field(
        None, ge=0, le=100_000, description="the same as a number of epochs, in place of `warmup`"
    )

    def warm_up(self, epochs: int) -> float:
        """The epochs of the warm-up in a run of `epochs`, fractions included."""
        return self.warmup * epochs if self.warmup_epochs is None else self.warmup_epochs

    def lr(self, base_lr: float, epoch_progress: float, epochs: int) -> float:
        """The rate after `epoch_progress` finished epochs, fractions included, of `epochs`."""
        warm_up = self.warm_up(epochs)
        if epoch_progress < warm_up:
            rise = epoch_progress / warm_up
            return base_lr * (_WARMUP_START + (1 - _WARMUP_START) * rise)
        left = epochs - warm_up
        done = min((epoch_progress - warm_up) / left, 1.0) if left > 0 else 1.0
        return base_lr * self._factor(done)

    def _factor(self, done: float) -> float:
        """The factor on the rate at `done`, the share 0..1 of the epochs after the warm-up."""
        raise NotImplementedError


class Cosine(_WarmedUp):
    """The full rate, then half a cosine to the lowest (SGDR, arXiv:1608.03983, no restarts).

    Short runs learn faster when the rate stays up until near their end, as in "Scaling Laws and
    Compute-Optimal Training Beyond Fixed Training Durations" (arXiv:2405.18392).
    """

    kind: Literal["cosine"] = "cosine"
    warmup: float = Field(
        0.05, ge=0, le=1, description="share of the epochs in which the rate rises from 1 % to full"
    )
    hold: float = Field(
        0.75,
        ge=0,
        lt=1,
        description="share of the epochs after the warm-up at the full rate; 0: it falls at once",
    )
    min_factor: float = Field(
        0.0, ge=0, le=1, description="the last rate as a fraction of the full rate"
    )

    def _factor(self, done: float) -> float:
        fallen = max(0.0, done - self.hold) / (1 - self.hold)
        return self.min_factor + (1 - self.min_factor) * (1 + math.cos(math.pi * fallen)) / 2


class CosineAnnealing(Component):
    """torch's CosineAnnealingLR as it is, stepped once per epoch; it rises again after t_max."""

    kind: Literal["cosine_annealing"] = "cosine_annealing"
    t_max: int = Field(100, ge=1, le=100_000, description="epochs from the highest rate to eta_min")
    eta_min: float = Field(0.0, ge=0, le=10, description="the lowest learning rate")

    def warm_up(self, epochs: int) -> float:
        """There is none."""
        return 0.0

    def lr(self, base_lr: float, epoch_progress: float, epochs: int) -> float:
        """The rate after `epoch_progress` finished epochs; `epochs` is not used."""
        cosine = math.cos(math.pi * math.floor(epoch_progress) / self.t_max)
        return self.eta_min + (base_lr - self.eta_min) * (1 + cosine) / 2


class Poly(_WarmedUp):
    """(1 - done) ** power, as in DeepLab (arXiv:1606.00915)."""

    kind: Literal["poly"] = "poly"
    power: float = Field(0.9, gt=0, le=10, description="exponent of the remaining share of epochs")

    def _factor(self, done: float) -> float:
        return float((1 - done) ** self.power)


class Constant(_WarmedUp):
    """The full rate throughout, after a warm-up if there is one."""

    kind: Literal["constant"] = "constant"

    def _factor(self, done: float) -> float:
        return 1.0


Schedule = Annotated[
    Cosine | CosineAnnealing | Poly | Constant,
    Field(discriminator="kind"),
]
