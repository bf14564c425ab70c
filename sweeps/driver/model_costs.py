"""What the models of a sweep cost, for its plan: parameters, operations, latency."""

from __future__ import annotations

from collections.abc import Iterator

from sweeps.config.recipe import Recipe
from sweeps.config.space import Choice
from unetexp.metrics.latency import latency_on_one_core_ms
from unetexp.models.cost import model_cost
from unetexp.models.unet import build_unet
from unetexp.training.config import TrainConfig

_CLASSES, _CHANNELS = 2, 3  # the plan knows no data: neither counts for much in a model's cost


def describe_models(recipe: Recipe) -> list[str]:
    """A line for every encoder with every kind of decoder that trials may have."""
    side_px = recipe.base.augment.crop_px
    lines = [
        f"Models, for an image of {side_px} x {side_px} px, {_CHANNELS} channels and {_CLASSES} "
        "classes; latency on one core"
    ]
    for config in _models(recipe):
        encoder, decoder = config.encoder, config.decoder
        cost = model_cost(encoder, decoder, _CLASSES, _CHANNELS, side_px)
        model = build_unet(encoder, decoder, _CLASSES, _CHANNELS)
        milliseconds = latency_on_one_core_ms(model, _CHANNELS, side_px, side_px)
        lines.append(
            f"  {encoder.kind} {encoder.name}, {decoder.kind}: {cost.parameters / 1e6:.1f} M "
            f"parameters, {cost.gflops:.1f} GFLOPs, {milliseconds:.0f} ms"
        )
    return lines


def _models(recipe: Recipe) -> Iterator[TrainConfig]:
    kinds = recipe.space.get("decoder.kind")
    decoders = kinds.values if isinstance(kinds, Choice) else (recipe.base.decoder.kind,)
    for point in recipe.encoder_points():
        for kind in decoders:
            yield recipe.config({**point, "decoder.kind": kind})
