"""DINOv3's rotary position embeddings for a grid of any size, made on the device that uses them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class RotaryEmbedding(nn.Module):
    """In the place of timm's `RotaryEmbeddingDinoV3`, with its values.

    timm makes the grid on the host, for which a GPU would be waited for at each step, and from
    numbers that fix an exported graph to one size.
    """

    def __init__(self, rope: nn.Module) -> None:
        """`rope` is timm's, with half rotation and a grid from -1 to 1 on each axis."""
        super().__init__()
        self.rope = rope

    def get_embed(self, shape: tuple[int, int]) -> Tensor:
        """For a grid of (rows, columns): (rows x columns, 2 x channels of a head), sine, cosine."""
        rope: Any = self.rope
        periods: Tensor = rope.periods  # (channels of a head / 4,)
        axes = [2 * (torch.arange(side, device=periods.device) + 0.5) / side - 1 for side in shape]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)  # (rows, columns, 2)
        angles = (2 * math.pi * grid[..., None] / periods).flatten(2).flatten(0, 1)
        sine, cosine = angles.sin(), angles.cos()
        return torch.cat([sine, sine, cosine, cosine], dim=-1)
