"""What a training step was measured to take, and the settings that follow from it for a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import TYPE_CHECKING

import torch

from unetexp.compute.device import device_kind
from unetexp.compute.settings import ComputeSettings

if TYPE_CHECKING:
    from unetexp.training.config import TrainConfig

CHOSEN = tuple(field.name for field in fields(ComputeSettings))  # fields of the config, too
_TIMED = ("precision", "memory_format")  # of these, what is timed wherever it is `auto`


@dataclass(frozen=True)
class TimedStep:
    """One way to compute a training step, and what the step took."""

    settings: ComputeSettings
    at_once: int  # processes that trained side by side
    threads: int  # of each of them
    step_s: float  # seconds of each of them


@dataclass(frozen=True)
class Measured:
    """Steps of one model on one kind of device, and how many trials at once were chosen there."""

    device: str  # as `device_kind` names it
    decoder: str  # the kind of the model's decoder: layouts suit them differently
    images: int  # of the micro-batch that was measured
    side_px: int  # of its square crops
    at_once: int
    steps: tuple[TimedStep, ...]
    left_out: tuple[ComputeSettings, ...] = ()  # far slower on small crops already, or failed
    beside_s: float = 0.0  # of a trial beside its steps, in seconds a step

    @property
    def of_choice(self) -> tuple[TimedStep, ...]:
        """The steps with as many trials at once as were chosen, the fastest first."""
        chosen = (step for step in self.steps if step.at_once == self.at_once)
        return tuple(sorted(chosen, key=lambda step: step.step_s))

    def images_per_s(self, at_once: int) -> float:
        """Of all trials together, in the fastest way for so many of them.

        What a trial does beside its steps counts, too.
        """
        return max(
            step.at_once * self.images / (step.step_s + self.beside_s)
            for step in self.steps
            if step.at_once == at_once
        )

    def describe(self) -> str:
        """Every figure, in a line."""
        figures = ", ".join(
            f"{wording(step.settings)}, {step.at_once} at once with {step.threads} threads: "
            f"{step.step_s:.3g} s"
            for step in (*self.of_choice, *(s for s in self.steps if s.at_once != self.at_once))
        )
        return (
            f"{self.device}, {self.decoder}, {self.images} images of {self.side_px} px: {figures}"
        )

    def fastest(self, config: TrainConfig) -> TimedStep | None:
        """The fastest step that has what `config` sets itself; None where none was measured."""
        return next((step for step in self.of_choice if has_settings(step.settings, config)), None)


def candidates(config: TrainConfig, device: torch.device) -> list[ComputeSettings]:
    """All ways to compute `config` on `device`, without compiling unless `config` asks for it.

    What `config` sets is the same in all of them.
    """
    free: Mapping[str, Sequence[str]] = {
        "precision": _precisions(device),
        "memory_format": ("contiguous", "channels_last"),
        "compile": ("none",),
    }
    options = [
        [getattr(config, name)] if getattr(config, name) != "auto" else free[name]
        for name in CHOSEN
    ]
    return [ComputeSettings(*chosen) for chosen in product(*options)]


def settings_for(
    measured: Iterable[Measured], config: TrainConfig, device: torch.device
) -> ComputeSettings | None:
    """The fastest settings for `config` on `device`; None where its kind was not measured."""
    kind = device_kind(device)
    steps = (
        found.fastest(config)
        for found in measured
        if found.device == kind and found.decoder == config.decoder.kind
    )
    return next((step.settings for step in steps if step is not None), None)


def wording(settings: ComputeSettings) -> str:
    """The settings in two or three words."""
    values = (getattr(settings, name) for name in CHOSEN)
    return " ".join(value for value in values if value != "none")


def is_free(config: TrainConfig) -> bool:
    """Whether something is left to measure."""
    return any(getattr(config, name) == "auto" for name in _TIMED)


def has_settings(settings: ComputeSettings, config: TrainConfig) -> bool:
    """Whether the settings are those of `config`, as far as it sets them."""
    return all(getattr(config, name) in ("auto", getattr(settings, name)) for name in CHOSEN)


def chosen_by(config: TrainConfig, measured: ComputeSettings | None) -> str:
    """How a run came to its settings, for its record."""
    if not is_free(config):
        return "configuration"
    return "rule" if measured is None else "measurement"


def _precisions(device: torch.device) -> tuple[str, ...]:
    if device.type != "cuda":
        return ("fp32", "bf16")
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return ("fp32", "bf16" if bf16 else "fp16")
