"""The section of a model card on what is done to a model's probabilities and labels."""

from __future__ import annotations

from collections.abc import Iterator

from sweeps.promotion.card.origin import table
from sweeps.promotion.evaluation import PromotionDecision
from unetexp.metrics.bootstrap import Interval
from unetexp.tuning.stored import DIAGRAM, RECORD
from unetexp.tuning.tune import Tuned

_HEADS = ("step", "measured by", "before", "after", "gain (95 % interval)", "chosen", "kept")


def postprocessing_section(decision: PromotionDecision) -> Iterator[str]:
    """What was chosen on validation, or that nothing was asked for."""
    yield "## Postprocessing"
    yield ""
    tuned = decision.tuned
    if tuned is None:
        given = decision.chosen.spec.postprocessing
        yield (
            "Not measured (`--postprocess`): each pixel has its most probable class."
            if given is None
            else f"As the model was tuned before: {given.describe()}."
        )
        return
    yield f"**{tuned.verdict}**"
    yield ""
    if tuned.steps:
        yield from _measured(tuned)


def _measured(tuned: Tuned) -> Iterator[str]:
    cells = [
        (
            step.name,
            step.measure,
            f"{step.before:.4f}",
            f"{step.after:.4f}",
            _gain(step.gain),
            step.found,
            "yes" if step.kept else "no",
        )
        for step in tuned.steps
    ]
    yield from table(_HEADS, cells)
    yield ""
    assert tuned.calibration is not None
    before, after = tuned.calibration
    yield (
        f"Chosen on the validation split, {tuned.images} images in {tuned.folds} folds, and "
        "measured on images that had no say in the choice; a step that does not help there stays "
        f"off. Expected calibration error there: {before:.4f}, then {after:.4f}. `{RECORD}` and "
        f"`{DIAGRAM}`, the reliability diagram, lie with the model."
    )


def _gain(gain: Interval) -> str:
    return f"{gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"
