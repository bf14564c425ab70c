"""What is compared: searchers with stopping rules, each as a controller of a whole sweep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna

from benchmarks.searching.first_points import FIRST
from benchmarks.searching.promotions import PromotingController
from sweeps.config.budget import Asha
from sweeps.config.recipe import Recipe
from sweeps.config.search import Gp, QuasiRandom, Random, Search, Tpe
from sweeps.search.controller import SweepController
from sweeps.state.ledger import Ledger

NO_STOPPING = Asha(enabled=False)
BY_FREEZING = Asha(bracket_by="encoder.freeze")


class PrunerRule:
    """One of Optuna's pruners in the place of our rungs.

    With Hyperband, Optuna's TPE learns from the trials of one bracket: its form of BOHB.
    """

    decisive_epochs: frozenset[int] = frozenset()

    def __init__(self, pruner: optuna.pruners.BasePruner) -> None:
        self._pruner = pruner
        self._controller: SweepController | None = None

    def attach(self, controller: SweepController) -> None:
        """Ask for the trials of this controller, which has not begun."""
        controller.study.pruner = self._pruner
        self._controller = controller

    def admits(
        self,
        trial: str,
        epoch: int,
        score: float,
        bracket: str = "",
        others: Sequence[float] = (),
        spent_s: float = 0.0,
    ) -> bool:
        """Optuna knows the score already: the controller reports it first."""
        assert self._controller is not None
        return not self._controller.trials[trial].optuna_trial.should_prune()

    def completed(self, trial: str, score: float, bracket: str, spent_s: float) -> None:
        """Optuna is told by the controller."""

    def describe(self) -> list[str]:
        return []


@dataclass(frozen=True)
class Arm:
    """A searcher with a stopping rule: ASHA's settings, one of Optuna's pruners, or promotions."""

    search: Search = field(default_factory=Tpe)
    asha: Asha = field(default_factory=Asha)
    pruner: Callable[[int], optuna.pruners.BasePruner] | None = None  # of the epochs of a trial
    promotes: bool = False
    grace_trainings: float | None = None  # rungs in time, the first after this many trainings
    first: str = ""  # what is tried first, by name in FIRST

    def controller(
        self, recipe: Recipe, seed: int, ledger: Ledger, devices: int, training_s: float
    ) -> Any:
        """A sweep that has not begun; a whole training takes `training_s` in the mean."""
        asha = self.asha
        if self.grace_trainings is not None:
            asha = Asha(grace_time=f"{self.grace_trainings * training_s:f}s")
        asked = recipe.model_copy(update={"search": self.search, "asha": asha})
        if self.promotes:
            return PromotingController(asked, seed, ledger, at_once=devices)
        if self.pruner is None:
            return SweepController(asked, seed, ledger, at_once=devices)
        rule = PrunerRule(self.pruner(recipe.base.epochs))
        controller = SweepController(asked, seed, ledger, at_once=devices, stopping=rule)
        rule.attach(controller)
        return controller


def _median(_: int) -> optuna.pruners.BasePruner:
    return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=3)


def _hyperband(epochs: int) -> optuna.pruners.BasePruner:
    return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)


OURS = "ours: tpe, asha"
RANDOM = "random"
_RUNGS = {
    f"{grace}/{factor}": Asha(grace_epochs=grace, reduction_factor=factor)
    for grace in (1, 3, 9)
    for factor in (2, 3, 4)
}
ARMS: dict[str, Arm] = {
    RANDOM: Arm(Random(), NO_STOPPING),
    OURS: Arm(),
    "qmc": Arm(QuasiRandom(), NO_STOPPING),
    "tpe": Arm(Tpe(), NO_STOPPING),
    "tpe, each setting by itself": Arm(Tpe(multivariate=False), NO_STOPPING),
    "random, asha": Arm(Random()),
    "qmc, asha": Arm(QuasiRandom()),
    **{f"tpe, asha {rungs}": Arm(Tpe(), asha) for rungs, asha in _RUNGS.items()},
    "tpe, asha by freezing": Arm(Tpe(), BY_FREEZING),
    "tpe after 10, asha": Arm(Tpe(startup_trials=10)),
    "tpe after 20, asha": Arm(Tpe(startup_trials=20)),
    "tpe by gain a second, asha": Arm(Tpe(cost_aware=True)),
    "tpe, asha in time": Arm(Tpe(), grace_trainings=1 / 9),
    "tpe by gain a second, asha in time": Arm(Tpe(cost_aware=True), grace_trainings=1 / 9),
    **{f"tpe, asha, first {what}": Arm(first=what) for what in FIRST},
    "tpe, judged by the last epoch": Arm(Tpe(), Asha(judged="last")),
    "tpe, median": Arm(Tpe(), pruner=_median),
    "random, hyperband": Arm(Random(), pruner=_hyperband),
    "bohb: tpe, hyperband": Arm(Tpe(), pruner=_hyperband),
    **{
        f"tpe, promotions {rungs}": Arm(Tpe(), _RUNGS[rungs], promotes=True)
        for rungs in ("1/3", "3/3", "9/3")
    },
    "random, promotions 3/3": Arm(Random(), _RUNGS["3/3"], promotes=True),
    "gp": Arm(Gp(), NO_STOPPING),
    "gp, asha": Arm(Gp()),
}
SLOW = {"gp", "gp, asha"}  # seconds a proposal: left out unless asked for
