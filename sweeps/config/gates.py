"""The gates before a promotion: what a model must reach to become the champion, and the verdicts.

Figures are those of one split: `miou`, `iou/<class>`, ..., NaN where a class does not occur.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from unetexp.component import Component, decode
from unetexp.errors import ConfigError

_FIELD = "promotion"  # of the recipe, where the gates stand
_IOU = "iou/"
_ROUNDING = 1e-9  # 0.80 - 0.75 is not more than 0.05


class Gates(Component):
    """What a model must reach to be promoted."""

    miou_margin: float = Field(
        0.0, ge=0, le=1, description="how far mIoU may lie below the champion's"
    )
    class_margin: float = Field(
        0.05, ge=0, le=1, description="how far a class's IoU may lie below the champion's"
    )
    max_latency_ms: float | None = Field(
        None, gt=0, description="most milliseconds for one image; null: no limit"
    )
    max_size_mb: float | None = Field(
        None, gt=0, description="most megabytes (10^6 bytes) of weights; null: no limit"
    )

    def describe(self) -> str:
        """The gates in a sentence."""
        parts = [
            f"mIoU at most {self.miou_margin:g} below the champion's",
            f"no class's IoU more than {self.class_margin:g} below",
            _limit("latency", self.max_latency_ms, "ms"),
            _limit("size", self.max_size_mb, "MB"),
        ]
        return ", ".join(parts)


@dataclass(frozen=True)
class Measures:
    """What is judged of a model."""

    figures: Mapping[str, float]
    latency_ms: float
    size_mb: float


@dataclass(frozen=True)
class Verdict:
    """What a gate says of a model."""

    gate: str  # mIoU, class IoU, latency, size
    green: bool | None  # None: there is nothing to hold it against
    limit: str
    found: str
    by: str = ""  # how much a red one is missed by

    @property
    def red(self) -> bool:
        return self.green is False

    @property
    def light(self) -> str:
        """green, red or skipped."""
        return "skipped" if self.green is None else "green" if self.green else "red"

    def describe(self) -> str:
        """A red gate in a sentence."""
        return f"{self.gate}: {self.found}, allowed: {self.limit}; missed by {self.by}"


def changed_gates(gates: Gates, changes: Mapping[str, Any]) -> Gates:
    """The gates with the user's `promotion.*` changes; ConfigError for what is not a gate."""
    own = {}
    for path, value in changes.items():
        prefix, _, name = path.partition(".")
        if prefix != _FIELD or not name:
            known = ", ".join(f"{_FIELD}.{gate}" for gate in Gates.model_fields)
            raise ConfigError(
                f"--set {path}={value}: a promotion has only its gates to set: {known}."
            )
        own[name] = value
    changed: Gates = decode(Gates, {**gates.tree(), **own}, _FIELD)
    return changed


def judge(
    gates: Gates, model: Measures, champion: Mapping[str, float] | None, why_none: str = ""
) -> list[Verdict]:
    """A verdict of each gate, against the champion's figures on the same split.

    Without a champion to compare with, `why_none` says why; its two gates are then skipped.
    """
    return [
        _judge_miou(gates, model.figures, champion, why_none),
        _judge_classes(gates, model.figures, champion, why_none),
        _judge_limit("latency", model.latency_ms, gates.max_latency_ms, "ms"),
        _judge_limit("size", model.size_mb, gates.max_size_mb, "MB"),
    ]


def _judge_miou(
    gates: Gates, figures: Mapping[str, float], champion: Mapping[str, float] | None, why_none: str
) -> Verdict:
    gate, found = "mIoU", f"{figures['miou']:.4f}"
    if champion is None:
        return Verdict(gate, None, why_none, found)
    limit = champion["miou"] - gates.miou_margin
    wanted = f"at least {limit:.4f}"
    if gates.miou_margin:
        wanted += f" (the champion's {champion['miou']:.4f} less {gates.miou_margin:g})"
    missed = limit - figures["miou"]
    return Verdict(gate, missed <= _ROUNDING, wanted, found, _amount(missed))


def _judge_classes(
    gates: Gates, figures: Mapping[str, float], champion: Mapping[str, float] | None, why_none: str
) -> Verdict:
    """Classes that do not occur for one of the two models are left out: mIoU has counted them."""
    gate, limit = "class IoU", f"each at most {gates.class_margin:g} below the champion's"
    if champion is None:
        return Verdict(gate, None, why_none, "")
    drops = {
        name.removeprefix(_IOU): value - figures[name]
        for name, value in champion.items()
        if name.startswith(_IOU) and math.isfinite(value - figures[name])
    }
    if not drops:
        return Verdict(gate, None, "no class occurs for both models", "")
    worse = {name: drop for name, drop in drops.items() if drop > gates.class_margin + _ROUNDING}
    if not worse:
        least = max(drops, key=lambda name: drops[name])
        return Verdict(gate, True, limit, f"worst: {least} {0 - drops[least]:+.4f}")
    ranked = sorted(worse, key=lambda name: -worse[name])
    found = ", ".join(f"{name} {-worse[name]:+.4f}" for name in ranked)
    by = ", ".join(f"{_amount(worse[name] - gates.class_margin)} ({name})" for name in ranked)
    return Verdict(gate, False, limit, found, by)


def _judge_limit(gate: str, value: float, limit: float | None, unit: str) -> Verdict:
    found = f"{value:.1f} {unit}"
    if limit is None:
        return Verdict(gate, None, "no limit is set", found)
    wanted = f"at most {limit:g} {unit}"
    return Verdict(gate, value <= limit, wanted, found, f"{value - limit:.1f} {unit}")


def _amount(value: float) -> str:
    """A difference of scores; one that four decimals do not show in its own size."""
    return f"{value:.4f}" if abs(value) >= 1e-4 else f"{value:.1e}"


def _limit(what: str, limit: float | None, unit: str) -> str:
    return f"no limit of {what}" if limit is None else f"{what} at most {limit:g} {unit}"
