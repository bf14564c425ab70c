"""What a model costs, counted and not timed: parameters, and operations of a forward pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from unetexp.models.decoders import Decoder
from unetexp.models.encoders import Encoder
from unetexp.models.unet import build_unet


@dataclass(frozen=True)
class ModelCost:
    """Of the whole model, encoder and decoder."""

    parameters: int
    gflops: float  # 1e9 floating-point operations for one image; a multiply-add counts as two


def model_cost(
    encoder: Encoder, decoder: Decoder, num_classes: int, in_channels: int, side_px: int
) -> ModelCost:
    """The cost of a U-Net on a square image; nothing is allocated and nothing computed."""
    with torch.device("meta"):
        model = build_unet(encoder, decoder, num_classes, in_channels).eval()
        image = torch.empty(1, in_channels, side_px, side_px)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(image)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return ModelCost(parameters, counter.get_total_flops() / 1e9)
