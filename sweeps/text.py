"""How settings and endings are put into words, on the terminal and in MLflow; commands to type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unetexp.shell import installed as installed
from unetexp.shell import make as make
from unetexp.shell import program as program
from unetexp.shell import script as script

_REASONS = {
    "completed": "completed",
    "asha": "stopped early",
    "time_budget": "time was up",
    "interrupted": "interrupted",
    "nan": "loss not finite",
    "oom": "out of memory",
    "error": "error",
    "crash": "crashed",
    "preempted": "preempted",
    "node_lost": "node lost",
}


def describe_reason(stop_reason: str) -> str:
    """A stop reason for people."""
    return _REASONS.get(stop_reason, stop_reason)


def settings(values: Mapping[str, Any]) -> str:
    """A trial's searched settings on one line."""
    return ", ".join(f"{path}={_short(value)}" for path, value in values.items())


def count(number: int, what: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def paragraphs(*texts: str) -> str:
    """Markdown paragraphs of the texts that are not empty."""
    return "\n\n".join(filter(None, texts))


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
