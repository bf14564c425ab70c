"""The latency of a model for one image: C channels, H and W in pixels."""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn

_WARM_UP, _TIMED = 2, 7
_LONG_ENOUGH_S = 2.0  # images that take seconds are timed fewer times


def most_seconds(pass_s: float) -> float:
    """How long `latency_ms` takes at most, for a model whose forward pass takes `pass_s`."""
    return min((_WARM_UP + _TIMED) * pass_s, max(_LONG_ENOUGH_S, (_WARM_UP + 1) * pass_s) + pass_s)


@torch.inference_mode()
def latency_ms(model: nn.Module, channels: int, height: int, width: int) -> float:
    """Median milliseconds of a forward pass of one image (1, C, H, W), in fp32, as it is served.

    Measured on the model's device, in eval mode; the model's mode is restored afterwards.
    """
    device = next(model.parameters()).device
    image = torch.zeros(1, channels, height, width, device=device)
    training = model.training
    model.eval()
    times: list[float] = []
    begun = time.perf_counter()
    for _ in range(_WARM_UP + _TIMED):
        started = time.perf_counter()
        model(image)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
        if len(times) > _WARM_UP and time.perf_counter() - begun > _LONG_ENOUGH_S:
            break
    model.train(training)
    return 1e3 * statistics.median(times[_WARM_UP:])
