"""What the learning benchmark compares: one default undone at a time, and random trials."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import optuna
import torch
from torch import nn

from sweeps.config.loading import load_recipe
from sweeps.config.space import suggest
from unetexp.models.unet import UNet

BEFORE = {
    "optimizer.head_lr_scale": 1.0,
    "schedule.hold": 0.0,
    "schedule.warmup_epochs": 1.0,
    "batch_norm_images": 0,
    "ema_epochs": None,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "optimizer.head_lr_scale: 1": {"optimizer.head_lr_scale": 1.0},
    "optimizer.head_lr_scale: 10": {"optimizer.head_lr_scale": 10.0},
    "optimizer.head_lr_scale: 100": {"optimizer.head_lr_scale": 100.0},
    "schedule.hold: 0": {"schedule.hold": 0.0},
    "schedule.kind: constant": {"schedule": {"kind": "constant"}},
    "schedule.warmup: 0": {"schedule.warmup": 0.0},
    "schedule.warmup_epochs: 1": {"schedule.warmup_epochs": 1.0},
    "batch_norm_images: 0": {"batch_norm_images": 0},
    "batch_norm_images: 128": {"batch_norm_images": 128},
    "ema_epochs: null": {"ema_epochs": None},
    "ema_epochs: 2": {"ema_epochs": 2.0},
    "clip_norm: null": {"clip_norm": None},
    "optimizer.weight_decay: 1e-2": {"optimizer.weight_decay": 1e-2},
    "no augmentation": {
        "augment": {"crop_px": 96, "zoom_min": 1, "zoom_max": 1, "hflip": 0, "rotation_deg": 0}
        | {"brightness": 0, "contrast": 0}
    },
    "all as before": BEFORE,
}
_PACKAGED = {"encoder.weights": "packaged"}
PEER = "plain loop, smp"
INITIALISED = "decoder and head initialised as the peer's"


def random_values(trials: int) -> list[dict[str, Any]]:
    """Points of the quickstart's space, the same in every call."""
    recipe = load_recipe("quickstart", {})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [suggest(recipe.space, study.ask(), recipe.fixed_values()) for _ in range(trials)]
    return [
        {**values, **_PACKAGED} if values["encoder.kind"] == "timm" else values for values in drawn
    ]


def runs(what: str, seeds: int, trials: int) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(arm, seed, changes) of every run of the table."""
    if what == "defaults":
        for seed, arm in itertools.product(range(seeds), [*DEFAULTS, INITIALISED, PEER]):
            yield arm, seed, DEFAULTS.get(arm, {})
        return
    for number, values in enumerate(random_values(trials)):
        yield "now", number, values
        yield "not averaged", number, {**values, "ema_epochs": None}
        yield "before", number, {**values, **BEFORE}


@torch.no_grad()
def initialise_as_the_peer(model: UNet) -> None:
    """segmentation_models_pytorch: He uniform in the decoder, Xavier in the head, biases 0."""
    for name, module in model.named_modules():
        if name.startswith("encoder.") or not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            continue
        if name == "head":
            nn.init.xavier_uniform_(module.weight)
        else:
            nn.init.kaiming_uniform_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
