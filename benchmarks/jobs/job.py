"""One job of the comparison: the set, the time, and what all arms have in common."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeps.config.loading import load_recipe
from sweeps.config.recipe import Recipe
from unetexp.training.config import TrainConfig

RECIPE = "quickstart"


@dataclass(frozen=True)
class Job:
    """What every arm gets: images, encoder, initial weights, seed, and seconds on the machine."""

    set: str  # mni152, or the folder of a data set
    seconds: float
    crop_px: int
    encoder: dict[str, str]  # kind, name, weights
    seed: int
    folder: Path  # for the files of this run
    epochs: int | None = None  # of a trial; None: the recipe's

    def changes(self) -> dict[str, Any]:
        """The settings that are fixed, by dotted path."""
        epochs = {} if self.epochs is None else {"epochs": self.epochs}
        return {
            **{f"encoder.{name}": value for name, value in self.encoder.items()},
            "augment.crop_px": self.crop_px,
            "seed": self.seed,
            **epochs,
        }

    @property
    def recipe(self) -> Recipe:
        """The recipe, on this set."""
        return load_recipe(RECIPE, self.changes(), self.set)

    @property
    def defaults(self) -> TrainConfig:
        """What the recipe trains with where nothing is searched."""
        return self.recipe.base


@dataclass(frozen=True)
class Outcome:
    """What an arm made of its time."""

    test_miou: float
    val_miou: float
    how: str  # in words
    seconds: float = 0.0


@dataclass
class Clock:
    """The seconds that are left of a job; everything counts from the moment it is made."""

    seconds: float
    started: float = field(default_factory=time.monotonic)

    @property
    def spent(self) -> float:
        return time.monotonic() - self.started

    @property
    def left(self) -> float:
        return self.seconds - self.spent
