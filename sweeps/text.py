"""How settings and endings are put into words, on the terminal and in MLflow."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    """Markdown paragraphs of the texts that are not empty."""
    return "\n\n".join(filter(None, texts))


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def program(name: str) -> str:
    """`python` or `unetexp`: the bare name where the shell finds this environment's, else its path.

    After `make sweep` the shell's own Python is another one than that of the sweep.
    """
    ours = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if (found and Path(found).absolute() == ours) or not ours.exists():
        return name
    here = Path.cwd()
    return str(ours.relative_to(here) if ours.is_relative_to(here) else ours)
