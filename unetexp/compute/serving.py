"""How a finished model computes where it is served: in full fp32, large images in tiles.

`inference/predictor.py` serves with it, and `metrics/latency.py` measures it.

C channels, K classes, H W image size, h w size of a tile.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from unetexp.compute.cudnn import full_precision

_LAYOUT = torch.contiguous_format


def served_logits(model: nn.Module, network_input: Tensor) -> Tensor:
    """The logits (N, K, h, w) float32 of normalised images (N, C, h, w) float32.

    With TF32 they would depend on the tiles.
    """
    with full_precision(), torch.autocast(network_input.device.type, enabled=False):
        logits: Tensor = model(network_input.contiguous(memory_format=_LAYOUT))
    return logits


def laid_out_to_serve(model: nn.Module) -> nn.Module:
    """`model` itself if its weights lie as they are served, else a copy whose weights do."""
    if all(weight.is_contiguous(memory_format=_LAYOUT) for weight in model.parameters()):
        return model
    return copy.deepcopy(model).to(memory_format=_LAYOUT)
