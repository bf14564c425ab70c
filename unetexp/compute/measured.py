"""What a training step was measured to take, and the settings that follow from it for a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import TYPE_CHECKING

import torch

from unetexp.compute.device import device_kind
from unetexp.compute.settings import Compile, ComputeSettings

if TYPE_CHECKING:
    from unetexp.training.config import TrainConfig

CHOSEN = tuple(field.name for field in fields(ComputeSettings))  # fields of the config, too
_TIMED = ("precision", "memory_format")  # of these, what is timed wherever it is `auto`


def compile_pays(eager_step_s: float, compiled_step_s: float, compile_s: float, steps: int) -> bool:
    """Whether `steps` compiled steps save more than the `compile_s` that compiling takes.

    Steps and seconds are those of one trial. With a shared cache only the first trial of an
    architecture pays in full: then `compile_s` is the mean over the trials.
    """
    return (eager_step_s - compiled_step_s) * steps > compile_s


@dataclass(frozen=True)
class Compiling:
    """What torch.compile was measured to bring to a trial, or why it was not measured."""

    steps: int  # of a whole trial, as many as it takes of the measured size
    eager_s: float  # seconds of a step without it
    mode: Compile = "none"  # the one that was measured to be best
    step_s: float = 0.0  # seconds of a step with it
    compile_s: float = 0.0  # seconds until the first such step, nothing compiled before
    why_not: str = ""

    @property
    def chosen(self) -> Compile:
        """The mode, if a whole trial gains more by it than compiling takes; else none."""
        measured = self.mode != "none"
        pays = measured and compile_pays(self.eager_s, self.step_s, self.compile_s, self.steps)
        return self.mode if pays else "none"

    def describe(self) -> str:
        """The verdict with its figures."""
        if self.mode == "none":
            return f"compile none: {self.why_not}"
        gain_s = (self.eager_s - self.step_s) * self.steps
        gain = f"saves {gain_s:.3g} s" if gain_s > 0 else "saves nothing"
        verdict = f"compile {self.chosen}" + ("" if self.chosen == self.mode else f": {self.mode}")
        return (
            f"{verdict} takes {self.step_s:.3g} s a step instead of {self.eager_s:.3g}, which "
            f"{gain} in a trial's {self.steps} steps, and compiles for {self.compile_s:.3g} s"
        )


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
    compiling: Compiling | None = None  # None: the configuration says whether to compile
    encoder: str | None = None  # its name; None in what earlier versions recorded

    @property
    def of_choice(self) -> tuple[TimedStep, ...]:
        """The steps with as many trials at once as were chosen, the fastest first."""
        chosen = (step for step in self.steps if step.at_once == self.at_once)
        return tuple(sorted(chosen, key=lambda step: step.step_s))

    @property
    def best(self) -> TimedStep:
        """The fastest step, compiled if that pays."""
        return self._compiled(self.of_choice[0])

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
        compiling = f"; {self.compiling.describe()}" if self.compiling else ""
        model = f"{self.encoder}, {self.decoder}" if self.encoder else self.decoder
        return (
            f"{self.device}, {model}, {self.images} images of {self.side_px} px: {figures}"
            f"{compiling}"
        )

    def fastest(self, config: TrainConfig) -> TimedStep | None:
        """The fastest step that has what `config` sets itself; None where none was measured.

        It is compiled if that pays and `config` leaves it open.
        """
        step = next((step for step in self.of_choice if has_settings(step.settings, config)), None)
        return step if step is None or config.compile != "auto" else self._compiled(step)

    def _compiled(self, step: TimedStep) -> TimedStep:
        found, eager = self.compiling, self.of_choice[0]
        if found is None or found.chosen == "none" or step.settings != eager.settings:
            return step
        settings = replace(step.settings, compile=found.chosen)
        return replace(step, settings=settings, step_s=step.step_s * found.step_s / found.eager_s)


def candidates(config: TrainConfig, device: torch.device) -> list[ComputeSettings]:
    """All ways to compute `config` on `device`, without compiling unless `config` asks for it.

    Whether that pays is another question: see `Compiling`.

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
    """The fastest settings for `config` on `device`; None where its kind was not measured.

    Those of its encoder, if that was measured, else of any encoder with a decoder of its kind.
    """
    kind = device_kind(device)
    alike = [f for f in measured if f.device == kind and f.decoder == config.decoder.kind]
    alike.sort(key=lambda found: found.encoder != config.encoder.name)
    steps = (found.fastest(config) for found in alike)
    return next((step.settings for step in steps if step is not None), None)


def wording(settings: ComputeSettings) -> str:
    """The settings in two or three words."""
    values = (getattr(settings, name) for name in CHOSEN)
    return " ".join(value for value in values if value != "none")


def is_free(config: TrainConfig) -> bool:
    """Whether numbers or layout are left to measure."""
    return any(getattr(config, name) == "auto" for name in _TIMED)


def has_settings(settings: ComputeSettings, config: TrainConfig) -> bool:
    """Whether numbers and layout are those of `config`, as far as it sets them."""
    return all(getattr(config, name) in ("auto", getattr(settings, name)) for name in _TIMED)


def chosen_by(config: TrainConfig, measured: ComputeSettings | None) -> str:
    """How a run came to its settings, for its record."""
    if not is_free(config) and (measured is None or config.compile != "auto"):
        return "configuration"
    return "rule" if measured is None else "measurement"


def _precisions(device: torch.device) -> tuple[str, ...]:
    if device.type != "cuda":
        return ("fp32", "bf16")
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return ("fp32", "bf16" if bf16 else "fp16")
