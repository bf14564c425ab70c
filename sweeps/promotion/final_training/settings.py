"""What is asked of a final training, and the settings that follow from the trial's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.config.budget import NO_SEARCH, Asha
from sweeps.config.checks import check
from sweeps.config.recipe import Recipe
from sweeps.config.space import Choice
from unetexp.errors import ConfigError
from unetexp.training.config import TrainConfig, decode_config
from unetexp.training.optim import CosineAnnealing

TIMES = 5  # as many epochs as the trial had, unless told otherwise


@dataclass(frozen=True)
class FinalRequest:
    """What the command line asks of a final training."""

    epochs: int | None = None  # TIMES those of the trial
    seeds: int = 1  # trainings, each with a new seed
    with_val: bool = False  # then once more, on train and val together
    ensemble: bool = False  # try the average of the seeds' probabilities
    soup: bool = False  # try the average of their weights

    @property
    def merges(self) -> bool:
        return self.ensemble or self.soup

    def arguments(self) -> list[str]:
        """The options of the command line that ask for this."""
        epochs = [] if self.epochs is None else ["--epochs", str(self.epochs)]
        asked = {"--with-val": self.with_val, "--ensemble": self.ensemble, "--soup": self.soup}
        flags = [flag for flag, given in asked.items() if given]
        return ["--train-final", *epochs, "--seeds", str(self.seeds), *flags]

    def require_sound(self) -> None:
        """ConfigError where one seed should be averaged."""
        if self.merges and self.seeds < 2:
            flag = "--ensemble" if self.ensemble else "--soup"
            raise ConfigError(
                f"{flag} averages the models of several seeds, and --seeds {self.seeds} trains "
                "one. Give at least --seeds 2."
            )


def lengthened(config: TrainConfig, epochs: int) -> TrainConfig:
    """`config` for a run of `epochs`, with a fresh schedule of the same shape.

    What is counted in epochs keeps its share of them: a warm-up, the epoch in which the encoder
    thaws, the period of a schedule. Raises ConfigError for more epochs than a run may have.
    """
    scale = epochs / config.epochs
    changes: dict[str, object] = {"epochs": epochs}
    thaw, schedule = config.encoder.thaw_epoch, config.schedule
    if thaw is not None:  # thaw - 1 epochs are frozen
        changes["encoder.thaw_epoch"] = min(epochs, 1 + round((thaw - 1) * scale))
    if isinstance(schedule, CosineAnnealing):
        changes["schedule.t_max"] = max(1, round(schedule.t_max * scale))
    elif schedule.warmup_epochs is not None:
        changes["schedule.warmup_epochs"] = schedule.warmup_epochs * scale
    return decode_config(config.tree(), changes)


def final_recipe(
    recipe: Recipe, config: TrainConfig, seeds: Sequence[int], description: str
) -> Recipe:
    """A sweep of `config` alone, once with each seed, of which every model is kept.

    It is judged by the first objective, which decides a run's best epoch; devices are shared as in
    `recipe`.
    """
    budget = {"trials": len(seeds), "keep_models": "all", **NO_SEARCH}
    changed = recipe.model_copy(
        update={
            "description": description,
            "base": config.model_copy(update={"seed": seeds[0]}),
            "space": {"seed": Choice(values=tuple(seeds))},
            "weights": {},  # the config has those that its trial started from
            "objective": recipe.goals.objectives[0],
            "budget": recipe.budget.model_copy(update=budget),
            "asha": Asha(enabled=False),
            "points": tuple({"seed": seed} for seed in seeds),
        }
    )
    check(changed)
    return changed


def on_val_too(config: TrainConfig) -> TrainConfig:
    """`config` with the validation images among those it trains on."""
    return decode_config(config.tree(), {"data.train_with_val": True})
