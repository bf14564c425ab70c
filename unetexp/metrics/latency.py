"""The latency of a model for one image: C channels, H and W in pixels."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import nn

from unetexp.compute.serving import laid_out_to_serve, served_logits
from unetexp.compute.tiling import OVERLAP_PX, TILE_PX, Tiles

_WARM_UP, _TIMED = 2, 7
_LONG_ENOUGH_S = 2.0  # images that take seconds are timed fewer times
_MEASURED_MS: dict[tuple[object, ...], float] = {}  # by this process


def most_seconds(pass_s: float) -> float:
    """How long `latency_ms` takes at most, for a model whose forward pass takes `pass_s`."""
    return min((_WARM_UP + _TIMED) * pass_s, max(_LONG_ENOUGH_S, (_WARM_UP + 1) * pass_s) + pass_s)


@torch.inference_mode()
def latency_ms(model: nn.Module, channels: int, height: int, width: int) -> float:
    """Median milliseconds of the forward pass of one image (1, C, H, W), as it is served.

    That is in fp32 without TF32, with contiguous weights, and in tiles if it is large. Measured on
    the model's device, in eval mode; the model's mode is restored afterwards.
    """
    device = next(model.parameters()).device
    rows, columns = Tiles(TILE_PX, OVERLAP_PX, seam_px=0).grid(height, width)
    images = {
        (row.size, column.size): torch.zeros(1, channels, row.size, column.size, device=device)
        for row, column in product(rows, columns)
    }
    training = model.training
    served = laid_out_to_serve(model.eval())
    times: list[float] = []
    begun = time.perf_counter()
    for _ in range(_WARM_UP + _TIMED):
        started = time.perf_counter()
        for row, column in product(rows, columns):
            served_logits(served, images[row.size, column.size])
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
        if len(times) > _WARM_UP and time.perf_counter() - begun > _LONG_ENOUGH_S:
            break
    model.train(training)
    return 1e3 * statistics.median(times[_WARM_UP:])


def interleaved_ms(passes: Sequence[Callable[[], object]]) -> list[float]:
    """Median milliseconds of each of `passes`, taken in turns: what disturbs one disturbs all."""
    times: list[list[float]] = [[] for _ in passes]
    begun = time.perf_counter()
    for number in range(_WARM_UP + _TIMED):
        for each, one_pass in zip(times, passes, strict=True):
            started = time.perf_counter()
            one_pass()
            each.append(time.perf_counter() - started)
        if number >= _WARM_UP and time.perf_counter() - begun > _LONG_ENOUGH_S * len(passes):
            break
    return [1e3 * statistics.median(each[_WARM_UP:]) for each in times]


def latency_on_one_core_ms(model: nn.Module, channels: int, height: int, width: int) -> float:
    """As `latency_ms`, with one thread: several wait where other work takes a core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return latency_ms(model, channels, height, width)
    finally:
        torch.set_num_threads(threads)


def latency_once_ms(model: nn.Module, channels: int, height: int, width: int) -> float:
    """`latency_ms`, measured once in a process for all models that are built alike.

    The values of weights cost no time. What is frozen does: an encoder may fold it.
    """
    device = next(model.parameters()).device
    frozen = tuple(not weight.requires_grad for weight in model.parameters())
    built = (repr(model), frozen, channels, height, width, device, torch.get_num_threads())
    if built not in _MEASURED_MS:
        _MEASURED_MS[built] = latency_ms(model, channels, height, width)
    return _MEASURED_MS[built]
