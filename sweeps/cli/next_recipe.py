"""`python sweeps/compare.py SWEEP --next RECIPE`: writes a recipe for the next sweep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.text import count, script
from sweeps.tracking.store import TrackingStore
from unetexp.errors import ConfigError, UserError
from unetexp.tracking.uri import tracking_option

if TYPE_CHECKING:
    from mlflow.entities import Run


def check_place(path: Path, names: Sequence[str]) -> None:
    """ConfigError unless `path` can become the recipe after the sweeps with these names."""
    if len(names) > 1:
        raise ConfigError(
            f"--next {path}: it follows one sweep and {len(names)} are named ({', '.join(names)}). "
            "Name one."
        )
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"--next {path}: give a file that ends in .yaml, as recipes do.")
    if path.exists():
        raise ConfigError(
            f"--next {path}: it exists already and is not overwritten. Name another file, or "
            "remove it."
        )


def write_next(
    store: TrackingStore, run: Run, path: Path, uri: str | None, say: Callable[[str], None]
) -> None:
    """Write the recipe that follows the sweep with the parent run `run`, and say what changed.

    UserError where the sweep's recipe cannot be read, no trial ran to its end, or `path` cannot
    be written.
    """
    from sweeps.promotion.candidates import source_sweep
    from sweeps.report.advice.dimensions import advice
    from sweeps.report.advice.next_recipe import as_yaml, next_recipe
    from sweeps.report.effects import effects
    from sweeps.report.sweep_data import load_sweep_data

    name, recipe = run.data.tags["sweep.name"], source_sweep(store, run).recipe
    sweep_data = load_sweep_data(store, name)
    full = int(sweep_data.trials["full_budget"].sum())
    if not full:
        raise UserError(
            f"--next {path}: no trial of {name} has run all its epochs, so nothing follows from it."
        )
    found = effects(sweep_data.comparable, sweep_data.settings)
    made = next_recipe(recipe, sweep_data, advice(sweep_data, found, recipe.space))
    start = script("run", str(path), "--warm-start", name, *tracking_option(uri))
    ran = f"{count(len(sweep_data.trials), 'trial')}, {full} of them with all epochs"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(as_yaml(made, [f"After the sweep {name} ({ran}).", f"command:  {start}"]))
    except OSError as error:
        raise UserError(f"--next {path}: it cannot be written ({error}).") from None
    say(f"recipe for the next sweep, after {ran}: {path}")
    for change in made.changes:
        say(f"  - {change}")
    if recipe.space == made.recipe.space:
        say("  - The space is the same: no change of it is clear.")
    say(f"start it  {start}")
