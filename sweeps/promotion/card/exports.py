"""The section of a model card on the exports that are registered beside the weights."""

from __future__ import annotations

from collections.abc import Iterator

from sweeps.promotion.card.origin import table
from sweeps.promotion.evaluation import PromotionDecision
from unetexp.export.card import measured_on
from unetexp.runtimes.flavors import KEY, PYTORCH

_HEADS = ("export", "runtime", "mIoU", "points lost", "pixels equal", "latency", "size")


def exports_section(decision: PromotionDecision) -> Iterator[str]:
    """What each export lost, and which flavour of the model is used."""
    proof = decision.exports[0].proof
    yield "## Exports"
    yield ""
    cells = [
        (
            each.name,
            each.exported.description.runtime,
            f"{each.metrics['miou']:.4f}",
            f"{each.proof.lost_points:.2f}",
            f"{each.proof.equal_pixels:.3%}",
            f"{each.latency_ms:.1f} ms",
            f"{each.exported.size_mb:.1f} MB",
        )
        for each in decision.exports
    ]
    yield from table(_HEADS, cells)
    yield ""
    yield (
        f"mIoU is of the {decision.split} split. Points lost and equal pixels are beside the "
        f"weights in PyTorch fp32, measured on {measured_on(proof)}. The gates judged each export "
        "as they judged the weights."
    )
    yield ""
    names = (PYTORCH, *(each.name for each in decision.exports))
    other = next(name for name in names if name != decision.flavor)
    yield (
        f"`models:/unetexp@champion` is used with **{decision.flavor}**; for another one: "
        f'`mlflow.pyfunc.load_model(URI, model_config={{"{KEY}": "{other}"}})`, '
        f'`unetexp.load(URI, flavor="{other}")` or `--flavor {other}`.'
    )
