"""The gates of a promotion: what a model must reach to become the champion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from unetexp.component import Component, decode, override
from unetexp.errors import ConfigError, did_you_mean, not_a_choice
from unetexp.metrics.figures.families import FAMILIES, figure_names
from unetexp.metrics.figures.settings import FigureSettings

_FIELD = "promotion"  # the recipe's section that holds the gates
_SCORES = ("miou", "dice", "pixel_accuracy", "dice_per_image")  # with the figures: what can be one
_LIMITS = ("minimum", "maximum")


def _of_known_kinds(limits: Mapping[str, float]) -> Mapping[str, float]:
    """Limits of figures; the classes are not known before the data is read."""
    kinds = sorted({*_SCORES, *FAMILIES})
    for name in limits:
        kind, slash, class_name = name.partition("/")
        if kind not in kinds:
            near = did_you_mean(kind, kinds).removesuffix("'?") + f"{slash}{class_name}'?"
            raise ConfigError(
                f"there is no figure {name!r}.{near if len(near) > len(name) + 3 else ''} There "
                f"are: {', '.join(kinds)}; those of a class are called KIND/CLASS."
            )
    return limits


Limits = Annotated[dict[str, float], AfterValidator(_of_known_kinds)]


class Gates(Component):
    """What a model must reach to be promoted."""

    miou_margin: float = Field(
        0.0, ge=0, le=1, description="how far the mIoU may lie below the champion's"
    )
    class_margin: float = Field(
        0.05, ge=0, le=1, description="how far the IoU of any class may lie below the champion's"
    )
    max_latency_ms: float | None = Field(
        None, gt=0, description="largest latency in milliseconds per image; null: no limit"
    )
    max_size_mb: float | None = Field(
        None,
        gt=0,
        description="largest size of the weights in megabytes (10^6 bytes); null: no limit",
    )
    minimum: Limits = Field(
        {},
        description="the least that figures on the promotion's split must reach, by their names, "
        "such as {nsd/lesion: 0.9}; see docs/figures.md",
    )
    maximum: Limits = Field(
        {},
        description="the most that figures on the promotion's split may be, by their names, such "
        "as {hd95/lesion: 5, ece: 0.05}",
    )
    figures: FigureSettings = Field(
        FigureSettings(), description="how outlines are compared, at promotion and in the report"
    )

    def describe(self) -> str:
        """The gates in a sentence."""
        parts = [
            f"mIoU at most {self.miou_margin:g} below the champion's",
            f"no class's IoU more than {self.class_margin:g} below",
            _limit("latency", self.max_latency_ms, "ms"),
            _limit("size", self.max_size_mb, "MB"),
            *(f"{name} at least {value:g}" for name, value in self.minimum.items()),
            *(f"{name} at most {value:g}" for name, value in self.maximum.items()),
        ]
        return ", ".join(parts)

    def require_classes(self, class_names: Sequence[str]) -> None:
        """ConfigError for a limit on a figure that data of these classes does not have."""
        pixels = [f"{kind}/{name}" for kind in ("iou", "dice") for name in class_names]
        known = list(dict.fromkeys([*_SCORES, *pixels, *figure_names(class_names)]))
        for side in _LIMITS:
            for name in getattr(self, side):
                if name not in known:
                    raise ConfigError(not_a_choice(f"{_FIELD}.{side}", name, known))


def changed_gates(gates: Gates, changes: Mapping[str, Any]) -> Gates:
    """The gates with the user's `promotion.*` changes; ConfigError for what is not a gate."""
    for path, value in changes.items():
        prefix, _, name = path.partition(".")
        if prefix != _FIELD or not name:
            known = ", ".join(f"{_FIELD}.{gate}" for gate in Gates.model_fields)
            raise ConfigError(
                f"--set {path}={value}: only the gates of a promotion can be set: {known}."
            )
    limits = {path: value for path, value in changes.items() if is_limit(path)}
    others = {p.partition(".")[2]: v for p, v in changes.items() if p not in limits}
    fields = {name: value for name, value in others.items() if "." not in name}
    nested = {name: value for name, value in others.items() if name not in fields}
    tree = override(Gates, {**gates.tree(), **fields}, nested)
    changed: Gates = decode(Gates, with_limits({_FIELD: tree}, limits)[_FIELD], _FIELD)
    return changed


def with_limits(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's `tree` with changes that are each one figure's limit.

    In `promotion.minimum.nsd/lesion` the figure's name is all that follows, dots included.
    """
    section = dict(tree.get(_FIELD) or {})
    for path, value in changes.items():
        _, side, name = path.split(".", 2)
        section[side] = {**(section.get(side) or {}), name: value}
    return {**tree, _FIELD: section} if section else dict(tree)


def is_limit(path: str) -> bool:
    """Whether a changed path is the limit of one figure."""
    return path.startswith(tuple(f"{_FIELD}.{side}." for side in _LIMITS))


def _limit(what: str, limit: float | None, unit: str) -> str:
    return f"no {what} limit" if limit is None else f"{what} at most {limit:g} {unit}"
