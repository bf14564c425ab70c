"""The error tree. Every message says what was given, what is allowed and what to do.

`UserError` and its subclasses are the user's mistakes: a command prints the message alone
and exits with 2. Every class takes one finished message, so that all of them survive pickling
on the way from a worker to the driver.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnetexpError(Exception):
    """Base of every error this project raises on purpose."""


class UserError(UnetexpError, ValueError):
    """A mistake that the user can correct."""


class ConfigError(UserError):
    """A wrong key, choice or value in a configuration, a recipe or on the command line."""


class DataError(UserError):
    """A problem with the images or masks."""


class WeightsUnavailableError(UserError):
    """Pretrained weights were requested and are not available."""


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, or not written by this project."""


class NonFiniteLossError(UnetexpError, ArithmeticError):
    """A loss became NaN or infinite; the message names the metric, the epoch and the step."""


class SettingIgnoredError(UnetexpError):
    """A run does not train as it was configured; the message names each setting."""


class GateError(UnetexpError):
    """A model fails promotion gates; the message names each gate and by how much."""


def did_you_mean(given: object, choices: Iterable[object]) -> str:
    """` Did you mean 'x'?` for the choice nearest to `given`, or an empty string."""
    near = difflib.get_close_matches(str(given), [str(c) for c in choices], n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def not_a_choice(where: str, given: object, choices: Iterable[object]) -> str:
    """The sentence for a name that is not among `choices`: first the nearest name, then all."""
    names = [str(c) for c in choices]
    return f"{where}: {given!r} is not a choice.{did_you_mean(given, names)} Choices: " + (
        ", ".join(names) or "none"
    )


def listed(names: Iterable[object], most: int = 5) -> str:
    """The first few of `names`, and how many more there are."""
    shown = [str(name) for name in names]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more
