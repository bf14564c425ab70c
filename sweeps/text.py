"""Text for the terminal and for MLflow: settings, counts, paragraphs, commands to type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unetexp.system.shell import installed as installed
from unetexp.system.shell import make as make
from unetexp.system.shell import program as program
from unetexp.system.shell import script as script


def settings(values: Mapping[str, Any]) -> str:
    """A trial's searched settings on one line."""
    return ", ".join(f"{path}={_short(value)}" for path, value in values.items())


def count(number: int, what: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def spelled_duration(seconds: float) -> str:
    """Seconds as `8 s`, `3 min 20 s` or `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    large, small, names = (*divmod(whole, 60), ("min", "s"))
    if whole >= 3600:
        large, small, names = (*divmod(round(whole / 60), 60), ("h", "min"))
    return f"{large} {names[0]}" + (f" {small} {names[1]}" if small else "")


def paragraphs(*texts: str) -> str:
    """The texts that are not empty, as Markdown paragraphs."""
    return "\n\n".join(filter(None, texts))


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
