"""From a plan to a sweep that can start: opens its data, resolves its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sweeps.config.goals import check_classes
from sweeps.config.recipe import Recipe
from sweeps.driver.encoder_weights import SettledWeights, settle_weights
from sweeps.driver.plan import SweepPlan
from sweeps.execution.cluster import joined
from sweeps.execution.ray_session import require_short_folder
from sweeps.execution.shared_storage import require_shared_storage
from unetexp.compute.device import unused_driver_warning
from unetexp.data import Dataset, open_dataset
from unetexp.data.checks.quick import quick_check
from unetexp.data.layouts.paragraph import paragraph


@dataclass(frozen=True)
class PreparedSweep:
    """A planned sweep with its data opened and its weights resolved."""

    plan: SweepPlan
    recipe_asked: Recipe  # before its weights were resolved
    data: Dataset
    weights: SettledWeights
    warnings: tuple[str, ...]  # shown and recorded

    @property
    def understood(self) -> str:
        """What was understood of the data, in one paragraph."""
        return paragraph(self.plan.recipe.base.data, self.data)


def prepare(
    plan: SweepPlan,
    on_progress: Callable[[str, int, int], None] | None = None,
    *,
    started: bool = False,
) -> PreparedSweep:
    """Open the data and resolve the weights, once for all trials; creates nothing of the sweep.

    Raises DataError, WeightsUnavailableError, ConfigError for the objective of a class that
    cannot be measured, and UserError as `require_short_folder`. Data with
    problems is refused unless the sweep, or the one whose trials it trains again, was `started` on
    it already.
    """
    if plan.options.address is None:
        require_short_folder()
    data = open_dataset(plan.recipe.base.data, on_progress=on_progress, to_train=not started)
    check_classes(plan.recipe.goals, data.class_names, data["val"].class_pixels.tolist())
    weights = settle_weights(plan.recipe, plan.options.changes, data.channels)
    doubts = data.problems if started else ()
    warnings = [*data.notes, *doubts, *quick_check(data), *weights.warnings]
    if plan.options.gpus is None and plan.options.address is None and not plan.placement.gpus:
        warnings += filter(None, [unused_driver_warning()])
    recipe = weights.apply(plan.recipe)
    if plan.options.address is not None:
        with joined(plan.options.address):
            require_shared_storage(plan.storage, data, recipe.base)
    planned = replace(plan, recipe=recipe)
    return PreparedSweep(planned, plan.recipe, data, weights, tuple(warnings))
