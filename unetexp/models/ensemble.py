"""The models of k folds, or of several seeds, as one: their probabilities, averaged.

N batch, C channels, K classes, H W image size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unetexp.models.unet import UNet

_ALIKE = ("encoder", "decoder", "bridge", "up_blocks", "head")


class Ensemble(UNet):
    """Models that are built alike and were trained on different folds or with different seeds.

    What is asked of their form (strides, widths, receptive field) is the first one's.
    """

    def __init__(self, members: Sequence[UNet]) -> None:
        nn.Module.__init__(self)
        self.members = nn.ModuleList(members)
        self.training = members[0].training

    def __getattr__(self, name: str) -> Any:
        if name in _ALIKE:
            return getattr(self.members[0], name)
        return super().__getattr__(name)

    def forward(self, image: Tensor) -> Tensor:
        """As a U-Net's; the logits (N, K, H, W) are logarithms of the averaged probabilities."""
        total: Tensor = self.members[0](image).float().log_softmax(dim=1)
        for member in self.members[1:]:
            total = torch.logaddexp(total, member(image).float().log_softmax(dim=1))
        return total - math.log(len(self.members))
