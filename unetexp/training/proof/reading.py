"""One setting as it was asked for and as it was found, and where all of them are read from."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unetexp.data import Dataset
from unetexp.training.batches.train_batches import TrainBatches
from unetexp.training.config import TrainConfig
from unetexp.training.seen_step import SeenStep
from unetexp.training.state import TrainState

_NEAR = 1e-6  # relative: float32 and the order of factors


@dataclass(frozen=True)
class Reading:
    """A setting by its dotted path: what the configuration says, and what a live object has."""

    setting: str
    asked: object
    found: object

    @property
    def holds(self) -> bool:
        """Whether both are equal; numbers up to rounding."""
        if _is_number(self.asked) and _is_number(self.found):
            return math.isclose(self.asked, self.found, rel_tol=_NEAR)  # type: ignore[arg-type]
        return self.asked == self.found

    def describe(self) -> str:
        """As a sentence."""
        return f"{self.setting}: {self.asked} was asked for, and {self.found} is in use"


@dataclass(frozen=True)
class LiveRun:
    """A run that has trained for at least one epoch, between its last step and its validation."""

    config: TrainConfig
    data: Dataset
    state: TrainState
    batches: TrainBatches
    world: int = 1  # ranks that share a batch

    @property
    def epoch(self) -> int:
        """The epoch that was just trained, from 1."""
        return self.state.epoch + 1

    @property
    def seen(self) -> SeenStep:
        """What its first step in this process computed with."""
        assert self.state.seen is not None, "a step comes first"
        return self.state.seen


def common(values: set[object]) -> object:
    """The only one of the values, or all of them as text where they differ."""
    if len(values) == 1:
        return next(iter(values))
    return "both " + " and ".join(sorted(map(str, values))) if values else "none"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
