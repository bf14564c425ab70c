"""The loss that a step computed, read back field by field."""

from __future__ import annotations

from collections.abc import Iterator

from unetexp.training.losses import loss_for
from unetexp.training.losses.base import LossComponent
from unetexp.training.proof.reading import LiveRun, Reading


def loss_readings(run: LiveRun) -> Iterator[Reading]:
    """The kind, and each of its fields; weights by rule as they are counted on the split."""
    asked, live = loss_for(run.config.loss, run.data), run.seen.loss
    kind = run.config.loss.kind
    found = getattr(live, "kind", None) if isinstance(live, LossComponent) else None
    yield Reading("loss.kind", kind, found or type(live).__name__)
    if found == kind:
        for name in type(run.config.loss).model_fields:
            yield Reading(f"loss.{name}", getattr(asked, name), getattr(live, name))
