"""From a plan to a sweep that can start: its data at hand, its weights settled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sweeps.config.recipe import Recipe
from sweeps.driver.plan import SweepPlan
from sweeps.execution.cluster import joined
from sweeps.execution.shared_storage import require_shared_storage
from unetexp.data import Dataset, open_dataset
from unetexp.models.encoder_weights import resolve_weights
from unetexp.training.device import unused_driver_notice


@dataclass(frozen=True)
class PreparedSweep:
    """A planned sweep with its data at hand and its weights settled."""

    plan: SweepPlan
    recipe_asked: Recipe  # before its weights were settled
    data: Dataset
    notices: tuple[str, ...]  # to be said aloud and recorded


def prepare(
    plan: SweepPlan, on_progress: Callable[[str, int, int], None] | None = None
) -> PreparedSweep:
    """Open the data and settle the weights, once for all trials; nothing of the sweep is made.

    Raises DataError and WeightsUnavailableError.
    """
    data = open_dataset(plan.recipe.base.data, on_progress=on_progress)
    weights = resolve_weights(plan.recipe.base.encoder)
    notices = [*data.notes, *filter(None, [weights.notice])]
    if weights.encoder.weights == "none" and "encoder.freeze" in plan.recipe.space:
        notices.append(
            "encoder.freeze is searched while the encoder starts from random weights: a frozen "
            "part then learns nothing. Give pretrained weights, or --set encoder.freeze=none."
        )
    if plan.options.gpus is None and plan.options.address is None and not plan.placement.gpus:
        notices += filter(None, [unused_driver_notice()])
    base = plan.recipe.base.model_copy(update={"encoder": weights.encoder})
    recipe = plan.recipe.model_copy(update={"base": base})
    if plan.options.address is not None:
        with joined(plan.options.address):
            require_shared_storage(plan.storage, data, base)
    return PreparedSweep(replace(plan, recipe=recipe), plan.recipe, data, tuple(notices))
