"""A network in fp16 for the formats that torch itself runs."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from unetexp.export.subject import Subject, WithPreprocessing


class _InHalves(nn.Module):
    """A U-Net that computes in fp16; images and logits stay float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).half()

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K, H, W)."""
        logits: Tensor = self.model(images.half())
        return logits.float()


def in_precision(subject: Subject) -> nn.Module:
    """The network of `subject` as its precision asks: itself, or with a U-Net in halves."""
    if subject.precision != "fp16":
        return subject.network
    halves = _InHalves(subject.model.cpu().float().eval())
    return (WithPreprocessing(halves, subject.spec) if subject.preprocessing else halves).eval()
