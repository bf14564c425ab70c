"""Flags of `run.py` that are settings of the recipe, as dotted changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from unetexp.errors import ConfigError
from unetexp.training.config import parse_assignments

_FLAGS = {
    "budget.gpus_per_trial": "--gpus-per-trial",
    "budget.cpus_per_trial": "--cpus-per-trial",
    "budget.trials": "--trials",
    "budget.max_concurrent": "--max-concurrent",
    "budget.time": "--time-budget",
}  # the others are called as their paths are


def dotted_changes(assignments: list[str], flags: dict[str, Any]) -> dict[str, Any]:
    """The `--set` assignments and the flags that were given, as dotted changes."""
    changes = parse_assignments(assignments)
    for path, value in flags.items():
        if value is not None:
            if path in changes:
                raise ConfigError(
                    f"{path} is given twice: {value} by its flag and {changes[path]} by --set. "
                    "Leave one out."
                )
            changes[path] = value
    return changes


def gpu_share(text: str) -> float:
    """What `--gpus-per-trial` names: a share of a GPU, or a number of GPUs."""
    try:
        return float(text)
    except ValueError:
        raise ConfigError(
            f"--gpus-per-trial {text!r}: give a share of a GPU such as 0.5, a whole number of GPUs "
            "such as 2, or auto."
        ) from None


@contextmanager
def named_by_flag(flags: Mapping[str, Any]) -> Iterator[None]:
    """A setting that was given by its flag is named so in what is wrong with it."""
    try:
        yield
    except ConfigError as error:
        lines = str(error).splitlines()
        for path in (path for path, value in flags.items() if value is not None):
            flag = _FLAGS.get(path) or f"--{path}"
            lines = [
                flag + line.removeprefix(path) if line.startswith(f"{path}:") else line
                for line in lines
            ]
        raise ConfigError("\n".join(lines)) from None
