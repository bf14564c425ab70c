"""The batch that a step learned from, read back from its shapes, and how it was computed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from unetexp.training.proof.reading import LiveRun, Reading
from unetexp.training.sampling import RareClasses

_PRECISIONS = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
_CLIPPED = 1.01  # bf16 gradients, and the clipping's own small constant


def batch_readings(run: LiveRun) -> Iterator[Reading]:
    """Sizes from the batch itself; the draws of views and of images from who makes them."""
    config, seen, batches = run.config, run.seen, run.batches
    yield Reading("augment.crop_px", config.augment.crop_px, _side(seen.shape))
    yield Reading("batch_size", config.batch_size, seen.images * run.world)
    yield Reading("accumulation", config.accumulation, seen.micro_batches)
    steps = config.steps_per_epoch(len(run.data["train"]))
    yield Reading("min_steps", f"{steps} steps an epoch", f"{batches.steps} steps an epoch")
    found = batches.augment
    for name in type(config.augment).model_fields:
        yield Reading(f"augment.{name}", getattr(config.augment, name), getattr(found, name, None))
    # The windows that crops are cut from tell of rotation, zoom and elastic shifts.
    yield Reading(
        "augment", f"{config.augment.window_px} px windows", f"{seen.window_px} px windows"
    )
    yield Reading("seed", config.seed, batches.seed)
    yield from _sampler_readings(run)


def compute_readings(run: LiveRun) -> Iterator[Reading]:
    """Precision and layout of the step, the averaged weights, and the clipped gradients."""
    config, seen, state = run.config, run.seen, run.state
    rule = state.compute
    precision = rule.precision if config.precision == "auto" else config.precision
    yield Reading("precision", precision, _PRECISIONS.get(seen.logits_dtype, "another"))
    layout = rule.memory_format if config.memory_format == "auto" else config.memory_format
    has = {"channels_last": seen.channels_last, "contiguous": seen.contiguous}
    yield Reading("memory_format", layout, layout if has[layout] else "another")
    if state.forward.failure is None:  # else it has given up, and says so
        mode = rule.compile if config.compile == "auto" else config.compile
        yield Reading("compile", rule.compile and mode, state.forward.mode)
    decay = config.averaging_decay(len(run.data["train"]))
    named = "ema_epochs" if config.ema_decay is None else "ema_decay"
    yield Reading(named, decay, None if state.ema is None else state.ema.decay)
    yield from _clipping_readings(run)


def _clipping_readings(run: LiveRun) -> Iterator[Reading]:
    limit, norm = run.config.clip_norm, run.seen.gradient_norm
    if limit is None or norm is None:
        return
    found = float(norm)  # waits for the device, once a run
    if np.isfinite(found):  # an overflow in fp16, whose step is left out, tells nothing
        within = found <= limit * _CLIPPED
        asked = f"gradients of norm {limit:g} at most"
        yield Reading("clip_norm", asked, asked if within else f"gradients of norm {found:g}")


def _sampler_readings(run: LiveRun) -> Iterator[Reading]:
    asked, repeats = run.config.sampler, run.batches.repeats
    yield Reading("sampler.kind", asked.kind, "uniform" if repeats is None else "rare_classes")
    if isinstance(asked, RareClasses) and repeats is not None:
        expected = asked.repeats(run.data["train"].class_places.counts)
        for name in ("threshold", "power"):
            value = getattr(asked, name)
            same = np.array_equal(expected, repeats)
            yield Reading(f"sampler.{name}", value, value if same else "another")


def _side(shape: tuple[int, ...]) -> object:
    height, width = shape[-2:]
    return height if height == width else f"{height}x{width}"
