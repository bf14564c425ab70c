"""A whole recipe for a data set: every line with the reason for it.

The text is an ordinary recipe of a sweep, to be read, changed and run.
"""

from __future__ import annotations

import datetime
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import yaml

from unetexp.component import Tree, override
from unetexp.data import DataSource
from unetexp.planning.estimate import Estimate, estimate
from unetexp.planning.facts import DataFacts
from unetexp.planning.rules import Setting, augmentation, lengths, losses, sizes
from unetexp.training.config import TrainConfig, decode_config

_LEVELS = ["none", "stage1", "all"]
_UPSAMPLING = ["conv_transpose", "bilinear", "nearest", "pixel_shuffle"]
_TRIALS = {"cpu": 12, "cuda": 24}
_REASON_COLUMN = 48
_AS_GIVEN = "as it was given"


@dataclass(frozen=True)
class Plan:
    """A recipe's text and what it stands on."""

    name: str  # of the sweep, after the data
    facts: DataFacts
    text: str  # YAML, with the reasons as comments


def plan(source: DataSource, facts: DataFacts, device: str) -> Plan:
    """The recipe for `source` on a `device`, cpu or cuda."""
    found = sizes(facts, device)
    length, augment, loss = lengths(facts, device), augmentation(facts), losses(facts)
    settings = (*found.settings, *length.base, *augment.base)
    space = (*_encoder(), *loss.space, *_rate())
    changes = {setting.path: setting.value for setting in settings}
    config = decode_config({"data": source.tree()}, changes)
    cost = estimate(config, facts, found, device, _TRIALS[device])
    name = _name_of(source)
    return Plan(name, facts, _text(name, config, facts, settings, space, cost))


def _encoder() -> Iterator[Setting]:
    yield Setting(
        "encoder.kind",
        {"kind": "choice", "values": ["resnet", "timm"]},
        "ResNet-50 is strong, EfficientNet-Lite0 light; which is better here is found out",
    )
    yield Setting(
        "encoder.freeze",
        {"kind": "choice", "values": _LEVELS},
        "frozen parts keep what pretraining knew, which helps small sets, and cost less",
    )
    yield Setting(
        "decoder.upsampling",
        {"kind": "choice", "values": _UPSAMPLING},
        "no kind is best on every set",
    )


def _rate() -> Iterator[Setting]:
    yield Setting(
        "optimizer.lr",
        {"kind": "loguniform", "low": 3.0e-4, "high": 3.0e-3},
        "the setting that matters most, on a scale of powers",
    )


def _text(
    name: str,
    config: TrainConfig,
    facts: DataFacts,
    settings: Sequence[Setting],
    space: Sequence[Setting],
    cost: Estimate,
) -> str:
    base: Tree = {
        "data": _as_set(config.data),
        "encoder": {"name": "resnet50", "weights": "auto"},
        "decoder": {"kind": "slim"},
    }
    base = override(TrainConfig, base, {setting.path: setting.value for setting in settings})
    counts = ", ".join(f"{count} {name}" for name, count in facts.images.items())
    reasons = {
        "data.kind": f"as it was read: {counts} images",
        "data.root": "where it lies now",
        "encoder.name": "of the family that trials start from; encoder.kind varies it",
        "encoder.weights": "pretrained where they can be had, and said where not",
        "decoder.kind": "narrow: a fifth of the cost of the article's decoder",
        **{setting.path: setting.reason for setting in settings},
    }
    lines = [
        f"# Planned from the data on {datetime.date.today().isoformat()}; read it, change it.",
        "# command:  python sweeps/run.py THIS_FILE",
        *(f"# {line}" for line in describe(facts)),
        _line(f"name: {json.dumps(name)}", "first part of the sweep's name"),
        "base:",
        *_section(base, reasons, "  "),
        "space:",
        *(_line(f"  {s.path}: {_flow(s.value)}", s.reason) for s in space),
        _line(f"budget: {{trials: {cost.trials}}}", cost.describe()),
        _line("asha: {reduction_factor: 3}", "stops the worst trials after a third of the epochs"),
        "points:",
        *(_line(f"  - {_flow(point)}", reason) for point, reason in _first(space)),
    ]
    return "\n".join(lines) + "\n"


def _first(space: Sequence[Setting]) -> Iterator[tuple[Tree, str]]:
    """The trials that come first; what a point leaves out is drawn."""
    known = {"encoder.freeze": "none", "decoder.upsampling": "bilinear", "optimizer.lr": 1.0e-3}
    loss = next(setting.value["values"][0] for setting in space if setting.path == "loss.kind")
    for kind in ("resnet", "timm"):
        yield {"encoder.kind": kind, "loss.kind": loss, **known}, "tried first: sound on most sets"


def describe(facts: DataFacts) -> Iterator[str]:
    """The facts in a few lines."""
    counts = ", ".join(f"{count} {name}" for name, count in facts.images.items())
    yield (
        f"{counts} images of {min(facts.heights)} x {min(facts.widths)} to {max(facts.heights)} x "
        f"{max(facts.widths)} px, {facts.channels} channel{'s' if facts.channels > 1 else ''}, "
        f"{facts.bits} bit ({facts.looked_at} looked at)"
    )
    shares = (f"{n} {100 * s:.2g} %" for n, s in zip(facts.class_names, facts.shares, strict=True))
    void = f"; void {100 * facts.void_share:.2g} %" if facts.void_share else ""
    yield f"{facts.num_classes} classes: {', '.join(shares)}{void}"
    if facts.diameters:
        yield (
            f"objects: diameter {facts.usual_object():.0f} px in the median, nine of ten larger "
            f"than {facts.small_object():.0f} px"
        )


def _name_of(source: DataSource) -> str:
    """After the data's folder or table."""
    place = getattr(source, "root", None) or getattr(source, "path", None) or source.kind
    stem = unicodedata.normalize("NFKD", PurePath(place).stem.replace("ß", "ss"))
    plain = stem.encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_-]+", "-", plain).strip("-_") or "planned"


def _as_set(source: DataSource) -> Tree:
    """What of the source is not its default, the kind first."""
    fields = type(source).model_fields
    return {"kind": source.kind} | {
        name: value
        for name, value in source.tree().items()
        if name != "kind" and getattr(source, name) != fields[name].default
    }


def _section(tree: Tree, reasons: dict[str, str], indent: str, prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and any(reason.startswith(f"{path}.") for reason in reasons):
            yield f"{indent}{name}:"
            yield from _section(value, reasons, f"{indent}  ", f"{path}.")
        else:
            yield _line(f"{indent}{name}: {_flow(value)}", reasons.get(path, _AS_GIVEN))


def _line(text: str, reason: str) -> str:
    return f"{text:<{_REASON_COLUMN}}  # {reason}"


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    text: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True
    )
    return text.removesuffix("...\n").strip()
