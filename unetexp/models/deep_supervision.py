"""Deep supervision: in training, the features of every stride must tell the classes.

Deeply-supervised nets, Lee et al. 2015 (arXiv:1409.5185). N batch, K classes, H W image size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unetexp.data.labels import VOID
from unetexp.models.unet import UNet

AUXILIARY_STRIDES = (16, 8, 4, 2)


class DeeplySupervised(nn.Module):
    """A model with an auxiliary head on each up block but the last.

    The model knows nothing of the heads: it is saved, validated and exported as it is.
    """

    def __init__(self, model: UNet) -> None:
        super().__init__()
        self.model = model
        widths = model.decoder.widths_over(model.encoder.channels[-1])
        classes = model.head.out_channels
        self.heads = nn.ModuleList(nn.Conv2d(width, classes, 1) for width in widths[:-1])

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(N, C, H, W) -> logits (N, K, H, W), then of strides 16, 8, 4, 2 of the padded image."""
        return self.model.with_auxiliary(image, self.heads)


def labels_at(stride: int, labels: Tensor, logits: Tensor) -> Tensor:
    """Labels (N, H, W) at the nearest pixels to auxiliary logits (N, K, h, w): (N, h, w).

    The logits are of the padded image; what was added there is void.
    """
    height, width = (size * stride for size in logits.shape[-2:])
    padding = (0, width - labels.shape[-1], 0, height - labels.shape[-2])
    middle = stride // 2
    return F.pad(labels, padding, value=VOID)[:, middle::stride, middle::stride]


def deep_supervision_of(model: UNet) -> DeeplySupervised | None:
    """The model with its auxiliary heads, random ones, where its settings want them."""
    if not model.decoder.deep_supervision:
        return None
    weight = next(model.head.parameters())
    with torch.device(weight.device):
        return DeeplySupervised(model).train(model.training)
