"""Lovasz-softmax: a surrogate of the Jaccard loss. P pixels of the whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from unetexp.compute.on_device import on_host
from unetexp.training.losses.base import LossComponent
from unetexp.training.losses.masked_batch import MaskedBatch


class Lovasz(LossComponent):
    """Lovasz-softmax (Berman et al., arXiv:1705.08790), a surrogate of the Jaccard loss.

    Computed on all pixels of the batch at once, mean over the classes that occur.
    """

    kind: Literal["lovasz"] = "lovasz"

    def _value(self, batch: MaskedBatch) -> Tensor:
        probabilities = batch.probabilities()
        extensions = [
            _lovasz_extension(probabilities[:, label].flatten(), batch.truth[:, label].flatten())
            for label in _worth_sorting(batch.counts)
        ]
        return torch.stack(extensions).sum() / (batch.counts > 0).sum().clamp(min=1)


def _worth_sorting(counts: Tensor) -> Sequence[int]:
    """The classes that occur, or all where the host would have to wait: absent ones add 0."""
    present: list[int] = counts.nonzero().flatten().tolist() if on_host(counts) else []
    return present or range(len(counts))


def _lovasz_extension(probabilities: Tensor, truth: Tensor) -> Tensor:
    """One class's Lovasz extension of the Jaccard loss; both (P,); 0 if it is not in `truth`.

    Void pixels have probability 0 outside the class: an error of 0 adds nothing.
    """
    errors, order = torch.where(truth, 1 - probabilities, probabilities).sort(descending=True)
    in_class = truth[order]
    size = truth.sum()
    intersection = (size - in_class.cumsum(0)).float()
    union = (size + (~in_class).cumsum(0)).float()
    # The growth of 1 - intersection / union with each pixel, in closed form: differences of the
    # running value lose all digits on large batches.
    growth = torch.where(in_class, 1 / union, intersection / (union * (union - 1)).clamp(min=1))
    return (errors * growth).sum()
