"""Position embeddings of Vision Transformers for another number of patches."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MOST_PREFIX_TOKENS = 8


def resampled(positions: Tensor, shape: torch.Size) -> Tensor:
    """Embeddings (1, tokens, D) as timm resamples them for `shape`, bicubic and antialiased.

    The tokens are those of a square of patches, behind the same prefix tokens in both. Unchanged
    where that is not so.
    """
    if positions.shape == shape or positions.ndim != 3 or positions.shape[2] != shape[2]:
        return positions
    from timm.layers import resample_abs_pos_embed

    given, wanted = positions.shape[1], shape[1]
    for prefix in range(min(_MOST_PREFIX_TOKENS, given, wanted)):
        old, new = math.isqrt(given - prefix), math.isqrt(wanted - prefix)
        if (old**2, new**2) == (given - prefix, wanted - prefix):
            found: Tensor = resample_abs_pos_embed(
                positions, [new, new], old_size=[old, old], num_prefix_tokens=prefix
            )
            return found
    return positions
