"""Compares a model with the gates of its promotion: one verdict per gate.

Metrics are those of one split: `miou`, `iou/<class>`, `hd95/<class>`, ..., NaN where a class does
not occur.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sweeps.config.gates import Gates

_IOU = "iou/"
_ROUNDING = 1e-9  # 0.80 - 0.75 is not more than 0.05


@dataclass(frozen=True)
class Measures:
    """The values of a model that the gates check."""

    metrics: Mapping[str, float]
    latency_ms: float
    size_mb: float


@dataclass(frozen=True)
class Verdict:
    """The result of a gate for a model."""

    gate: str  # mIoU, class IoU, latency, size, or a figure's name
    green: bool | None  # None: there is nothing to compare with
    limit: str
    found: str
    by: str = ""  # how far a red gate was missed

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


def check_gates(
    gates: Gates, model: Measures, champion: Mapping[str, float] | None, why_none: str = ""
) -> list[Verdict]:
    """One verdict per gate, against the champion's metrics on the same split.

    Without a champion to compare with, `why_none` is the reason; its two gates are then skipped.
    """
    return [
        _check_miou(gates, model.metrics, champion, why_none),
        _check_classes(gates, model.metrics, champion, why_none),
        _check_limit("latency", model.latency_ms, gates.max_latency_ms, "ms"),
        _check_limit("size", model.size_mb, gates.max_size_mb, "MB"),
        *_check_figures(gates, model.metrics),
    ]


def _check_miou(
    gates: Gates, metrics: Mapping[str, float], champion: Mapping[str, float] | None, why_none: str
) -> Verdict:
    gate, found = "mIoU", f"{metrics['miou']:.4f}"
    if champion is None:
        return Verdict(gate, None, why_none, found)
    limit = champion["miou"] - gates.miou_margin
    wanted = f"at least {limit:.4f}"
    if gates.miou_margin:
        wanted += f" (the champion's {champion['miou']:.4f} less {gates.miou_margin:g})"
    missed = limit - metrics["miou"]
    return Verdict(gate, missed <= _ROUNDING, wanted, found, _amount(missed))


def _check_classes(
    gates: Gates, metrics: Mapping[str, float], champion: Mapping[str, float] | None, why_none: str
) -> Verdict:
    """Classes that do not occur for one of the two models are left out: mIoU covers them."""
    gate, limit = "class IoU", f"each at most {gates.class_margin:g} below the champion's"
    if champion is None:
        return Verdict(gate, None, why_none, "")
    drops = {
        name.removeprefix(_IOU): value - metrics[name]
        for name, value in champion.items()
        if name.startswith(_IOU) and math.isfinite(value - metrics[name])
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


def _check_limit(gate: str, value: float, limit: float | None, unit: str) -> Verdict:
    found = f"{value:.1f} {unit}"
    if limit is None:
        return Verdict(gate, None, "no limit is set", found)
    wanted = f"at most {limit:g} {unit}"
    return Verdict(gate, value <= limit, wanted, found, f"{value - limit:.1f} {unit}")


def _check_figures(gates: Gates, metrics: Mapping[str, float]) -> Iterator[Verdict]:
    """The limits of single figures. One that could not be computed was not reached: it is red."""
    for sign, word, limits in ((1, "least", gates.minimum), (-1, "most", gates.maximum)):
        for name, limit in limits.items():
            value, wanted = metrics[name], f"at {word} {limit:g}"
            if math.isnan(value):
                why = "the class is in no image, so nothing is shown"
                yield Verdict(name, False, wanted, "undefined", why)
                continue
            missed = sign * (limit - value)
            yield Verdict(name, missed <= _ROUNDING, wanted, f"{value:.4f}", _amount(missed))


def _amount(value: float) -> str:
    """A difference of scores, with an exponent where four decimals would show 0."""
    return f"{value:.4f}" if abs(value) >= 1e-4 else f"{value:.1e}"
