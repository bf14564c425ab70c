"""How the next trial is proposed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import optuna
from pydantic import Field

from sweeps.config.quasi_random import QuasiRandomSampler
from unetexp.component import Component


class Tpe(Component):
    """Optuna's tree-structured Parzen estimator: settings that resemble the good trials so far."""

    kind: Literal["tpe"] = "tpe"
    startup_trials: int = Field(
        5, ge=1, description="trials drawn at random before there is something to learn from"
    )
    multivariate: bool = Field(
        True, description="true: all settings together; false: each setting by itself"
    )
    cost_aware: bool = Field(
        False,
        description="true: of several proposals the one with the largest expected improvement a "
        "second, for spaces whose trials differ much in their time",
    )

    def build(self, seed: int, number: int, paths: Sequence[str]) -> optuna.samplers.BaseSampler:
        """The sampler of trial `number` of a sweep that searches `paths`."""
        with warnings.catch_warnings():
            # `group` handles conditional dimensions; it has been experimental since Optuna 2.8.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                seed=_seed_of(seed, number),
                n_startup_trials=self.startup_trials,
                multivariate=self.multivariate,
                group=self.multivariate,
                constant_liar=True,
            )


class Gp(Component):
    """Optuna's Gaussian process with expected improvement; it learns from full trials only."""

    kind: Literal["gp"] = "gp"
    cost_aware: ClassVar[bool] = False
    startup_trials: int = Field(
        5, ge=1, description="trials drawn at random before there is something to learn from"
    )

    def build(self, seed: int, number: int, paths: Sequence[str]) -> optuna.samplers.BaseSampler:
        """The sampler of trial `number`; a setting that not all trials have is drawn at random."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.GPSampler(
                seed=_seed_of(seed, number),
                n_startup_trials=self.startup_trials,
                warn_independent_sampling=False,
            )


class Random(Component):
    """Every trial by chance alone."""

    kind: Literal["random"] = "random"
    cost_aware: ClassVar[bool] = False
    startup_trials: ClassVar[int] = 0

    def build(self, seed: int, number: int, paths: Sequence[str]) -> optuna.samplers.BaseSampler:
        """The sampler of trial `number`."""
        return optuna.samplers.RandomSampler(seed=_seed_of(seed, number))


class QuasiRandom(Component):
    """A Sobol sequence, which covers the space more evenly than chance does."""

    kind: Literal["qmc"] = "qmc"
    cost_aware: ClassVar[bool] = False
    startup_trials: ClassVar[int] = 0

    def build(self, seed: int, number: int, paths: Sequence[str]) -> optuna.samplers.BaseSampler:
        """The sampler of every trial: which point of the sequence follows from its number."""
        return QuasiRandomSampler(paths, seed)


Search = Annotated[Tpe | Gp | Random | QuasiRandom, Field(discriminator="kind")]


def _seed_of(seed: int, number: int) -> int:
    """A seed for each trial: a proposal depends on no random numbers of before a restart."""
    return (seed * 1_000_003 + number) % 2**32
