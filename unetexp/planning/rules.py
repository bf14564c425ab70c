"""The rules of a plan: each looks at the facts and answers with settings and the reason for them.

All sizes are in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from unetexp.planning.facts import DataFacts

_STRIDE = 32  # sizes are multiples of what the encoder halves five times
_SEEN_PX = 8.0  # an object must keep this diameter at the working resolution to be seen well
_LARGEST = {"cpu": 1024, "cuda": 2048}  # longest side that is worth its time
_LARGEST_CROP = {"cpu": 256, "cuda": 512}
_WORTH_IT = 0.8  # a smaller change of scale is not worth its blur
_SMALLEST_SIDE = 512  # below, a photograph is not shrunk without need
_BATCH = {"cpu": 8, "cuda": 16}
_STEPS = {"cpu": 400, "cuda": 2000}  # of a trial that is not stopped
_MOST_EPOCHS = 100
_FEWEST_STEPS = 10  # of an epoch: fewer make a curve that jumps
_RARE = 0.01  # share of pixels below which a class is rare
_FEW_IMAGES, _VERY_FEW_IMAGES = 300, 60


@dataclass(frozen=True)
class Setting:
    """A value for a dotted path of the experiment, and why."""

    path: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Decision:
    """What is fixed and what is searched; dimensions are as a recipe's `space` has them."""

    base: tuple[Setting, ...] = ()
    space: tuple[Setting, ...] = ()


@dataclass(frozen=True)
class Sizes:
    """The working resolution and the crop."""

    longest: int  # median longest side of an image as it is trained on
    shortest: int
    scale: float  # of the stored size
    crop: int
    settings: tuple[Setting, ...] = field(default=())


def sizes(facts: DataFacts, device: str) -> Sizes:
    """Working resolution: as small as the objects allow, as large as the device is worth."""
    native, settings = facts.longest_side, []
    longest = _longest(facts, _LARGEST[device])
    scale = longest / native
    if scale < 1:
        settings.append(Setting("data.resize", longest, _why_resized(facts, scale)))
    shortest = round(facts.shortest_side * scale)
    crop = max(_STRIDE, min(_LARGEST_CROP[device], shortest // _STRIDE * _STRIDE))
    whole = "the largest multiple of 32 that fits into most images"
    part = f"a part of an image, whose shorter side is {shortest}: a larger one is slower"
    settings.append(Setting("augment.crop_px", crop, whole if crop > shortest - _STRIDE else part))
    return Sizes(longest, shortest, scale, crop, tuple(settings))


def _longest(facts: DataFacts, largest: int) -> int:
    """The longest side to work with; above `largest` only if most objects would vanish there."""
    native = facts.longest_side
    if native <= largest:
        return native
    small, usual = facts.small_object(), facts.usual_object()
    if not small:
        return largest
    wanted = max(_SMALLEST_SIDE, native * _SEEN_PX / small)
    if wanted > largest:
        wanted = max(largest, native * _SEEN_PX / usual)
    return native if wanted > _WORTH_IT * native else _rounded_up(wanted)


def _why_resized(facts: DataFacts, scale: float) -> str:
    small, usual = facts.small_object() * scale, facts.usual_object() * scale
    why = f"longest side; images are up to {facts.longest_side} px long"
    if not small:
        return why
    if small >= _SEEN_PX:
        return f"{why}, and nine of ten objects keep {small:.0f} px or more in diameter"
    return f"{why}; most objects keep {usual:.0f} px, one of ten has less than {small:.1f} px then"


def _rounded_up(side: float) -> int:
    return math.ceil(side / _STRIDE) * _STRIDE


def lengths(facts: DataFacts, device: str) -> Decision:
    """Batch, steps of an epoch and epochs."""
    train = facts.images["train"]
    quarter = 2 ** int(math.log2(max(train // 4, 1)))
    batch = min(_BATCH[device], max(2, quarter), train)
    steps = train // batch
    settings = [Setting("batch_size", batch, f"of {train} images to train on")]
    if steps < _FEWEST_STEPS:
        why = f"an epoch repeats the {train} images: curves of fewer steps jump"
        settings.append(Setting("min_steps", _FEWEST_STEPS, why))
        steps = _FEWEST_STEPS
    epochs = min(_MOST_EPOCHS, max(6, round(_STEPS[device] / steps)))
    settings.append(
        Setting("epochs", epochs, f"{epochs * steps} steps in a trial that is not stopped early")
    )
    return Decision(tuple(settings))


def augmentation(facts: DataFacts) -> Decision:
    """How much the images are changed."""
    train = facts.images["train"]
    if facts.channels == 1:
        why = "grey images, as scanners and microscopes make: contrast, noise and deformation"
        return Decision((Setting("augment.preset", "medical", why),))
    preset, why = "light", f"{train} images are many"
    if train < _VERY_FEW_IMAGES:
        preset, why = "strong", f"{train} images are very few"
    elif train < _FEW_IMAGES:
        preset, why = "medium", f"{train} images are few"
    return Decision((Setting("augment.preset", preset, why),))


def losses(facts: DataFacts) -> Decision:
    """The losses that are worth trying, and what helps rare classes."""
    name, share = facts.rarest
    percent = f"{100 * share:.2g} %"
    if share >= 0.1:
        values = ["cross_entropy", "dice_ce", "lovasz"]
        why = f"balanced: even the rarest class, {name}, has {percent} of the pixels"
    elif share >= _RARE:
        values = ["cross_entropy", "dice_ce", "focal", "lovasz"]
        why = f"{name} has {percent} of the pixels: overlap losses and focal may pay"
    else:
        values = ["dice_ce", "focal", "tversky", "lovasz"]
        why = f"{name} has only {percent} of the pixels: plain cross-entropy would miss it"
    space = [Setting("loss.kind", _choice(values), why), *_loss_details(values)]
    if share < _RARE:
        space += _for_rare(name)
    return Decision(space=tuple(space))


def _loss_details(values: list[str]) -> Iterator[Setting]:
    if "focal" in values:
        dimension = {"kind": "uniform", "low": 1.0, "high": 3.0, "when": {"loss.kind": "focal"}}
        yield Setting("loss.gamma", dimension, "how much focal leaves easy pixels out")


def _for_rare(name: str) -> Iterator[Setting]:
    weighted = {"when": {"loss.kind": ["dice_ce", "focal"]}}
    yield Setting(
        "loss.class_weights",
        {**_choice(["none", "effective_number", "median_frequency"]), **weighted},
        f"{name} counts more, or not: too much costs false alarms",
    )
    yield Setting(
        "augment.rare_crop",
        _choice([0.0, 0.5]),
        f"half the crops around {name}, or none",
    )


def _choice(values: list[Any]) -> dict[str, Any]:
    return {"kind": "choice", "values": values}
