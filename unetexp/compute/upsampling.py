"""Logits of an image that was scaled down, brought back to its own size in blocks of rows.

Bilinear, pixel centres on pixel centres, as `F.interpolate(..., mode="bilinear")` of the whole: but
for all classes of a photograph that would not fit into memory.

K classes, H W size of the image, h w working size, b rows of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK_BYTES = 2**25  # of a block's logits in fp32; about four times as much is held


def block_rows(num_classes: int, width: int) -> int:
    """Rows of a block of an image of that width."""
    return max(1, _BLOCK_BYTES // (4 * num_classes * width))


def upsampled(logits: Tensor, size: tuple[int, int]) -> Iterator[tuple[slice, Tensor]]:
    """The logits (K, h, w) at `size`: rows of the image, and (K, b, W) float32 of them."""
    height, width = size
    step = block_rows(len(logits), width)
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        if logits.shape[-2:] == size:
            yield rows, logits[:, rows].float()
        else:
            yield rows, _block(logits, rows, height, width)


def _block(logits: Tensor, rows: slice, height: int, width: int) -> Tensor:
    last = logits.shape[1] - 1
    # Made on the device, which nothing has to wait for then.
    row = torch.arange(rows.start, rows.stop, device=logits.device, dtype=torch.float32)
    place = ((row + 0.5) * (logits.shape[1] / height) - 0.5).clamp(0, last)
    above = place.floor().long()
    below = (above + 1).clamp(max=last)
    share = (place - above).view(1, -1, 1)
    upper, lower = (logits.index_select(1, which).float() for which in (above, below))
    mixed = torch.lerp(upper, lower, share.expand_as(upper))
    wide = F.interpolate(
        mixed[None], size=(mixed.shape[1], width), mode="bilinear", align_corners=False
    )
    return wide[0]


def upsampled_labels(
    logits: Tensor, size: tuple[int, int], see: Callable[[slice, Tensor], None] | None = None
) -> Tensor:
    """The class of the highest logit (H, W) uint8, of logits (K, h, w).

    `see` is given the rows and the logits (K, b, W) float32 of each block.
    """
    labels = torch.empty(size, dtype=torch.uint8, device=logits.device)
    for rows, block in upsampled(logits, size):
        labels[rows] = block.argmax(dim=0)
        if see:
            see(rows, block)
    return labels
