"""What a planned sweep will take, roughly: a sweep's preflight measures it exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unetexp.metrics.latency import latency_on_one_core_ms
from unetexp.models.unet import UNet, build_unet
from unetexp.planning.facts import DataFacts
from unetexp.planning.rules import Sizes
from unetexp.system.machine import available_cores
from unetexp.training.config import TrainConfig

_STEP = 3.0  # forward passes that a training step costs: the backward pass takes two
_AFTER_STOPPING = 0.55  # share of the epochs that early stopping with factor 3 leaves
_OVERHEAD_S = 60.0  # checks, start and end of a sweep


@dataclass(frozen=True)
class Estimate:
    """Of the whole sweep on one device."""

    trials: int
    epoch_s: float
    sweep_s: float

    def describe(self) -> str:
        """In a sentence."""
        return (
            f"roughly {_duration(self.sweep_s)} on one device like this one, "
            f"{_duration(self.epoch_s)} an epoch of ResNet-50; a sweep's checks measure it"
        )


def estimate(
    config: TrainConfig, facts: DataFacts, found: Sizes, device: str, trials: int
) -> Estimate:
    """From the time of one forward pass of the largest model on one crop."""
    model = build_unet(
        config.encoder.model_copy(update={"weights": "none"}),
        config.decoder,
        facts.num_classes,
        facts.channels,
    ).to(device)
    forward_s = _forward_s(model, facts.channels, found.crop)
    images = config.steps_per_epoch(facts.images["train"]) * config.batch_size
    pixels = found.longest * found.shortest / found.crop**2
    models = getattr(config.data, "folds", None) or 1  # one for each fold
    epoch_s = models * forward_s * (_STEP * images + pixels * facts.images["val"])
    sweep_s = _OVERHEAD_S + trials * config.epochs * epoch_s * _AFTER_STOPPING
    return Estimate(trials, epoch_s, sweep_s)


def _forward_s(model: UNet, channels: int, side: int) -> float:
    """Of one image; on a CPU timed on one core, because threads wait where others work too."""
    seconds = latency_on_one_core_ms(model, channels, side, side) / 1000
    return seconds / available_cores() if next(model.parameters()).device.type == "cpu" else seconds


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{math.ceil(seconds / 3600)} h"
