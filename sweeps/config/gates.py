"""The gates before a promotion: what a model must reach to become the champion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from unetexp.component import Component, decode
from unetexp.errors import ConfigError

_FIELD = "promotion"  # of the recipe, where the gates stand


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

    def describe(self) -> str:
        """The gates in a sentence."""
        parts = [
            f"mIoU at most {self.miou_margin:g} below the champion's",
            f"no class's IoU more than {self.class_margin:g} below",
            _limit("latency", self.max_latency_ms, "ms"),
            _limit("size", self.max_size_mb, "MB"),
        ]
        return ", ".join(parts)


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


def _limit(what: str, limit: float | None, unit: str) -> str:
    return f"no limit of {what}" if limit is None else f"{what} at most {limit:g} {unit}"
