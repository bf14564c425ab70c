"""Losses on logits, for masks with void pixels.

Every loss computes in float32, also under autocast, and leaves void pixels out of its sums and
its counts. Means over classes are taken over those that occur in the batch's masks.
A batch without a single valid pixel has the loss 0 and gradients 0.

Letters: N batch, K classes, H W height and width, P = N H W pixels of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from unetexp.component import decode
from unetexp.data import Dataset
from unetexp.training.losses.lovasz import Lovasz
from unetexp.training.losses.overlap import BceDice, Dice, DiceCE, Tversky
from unetexp.training.losses.pixelwise import CrossEntropy, Focal

__all__ = [
    "BceDice",
    "CrossEntropy",
    "Dice",
    "DiceCE",
    "Focal",
    "Loss",
    "LossFunction",
    "Lovasz",
    "Tversky",
    "create_loss",
    "loss_for",
]

LossFunction = Callable[[Tensor, Tensor], Tensor]

Loss = Annotated[
    CrossEntropy | BceDice | Dice | DiceCE | Focal | Tversky | Lovasz,
    Field(discriminator="kind"),
]


def create_loss(kind: str, **fields: Any) -> Loss:
    """The loss called `kind` with its hyperparameters: `create_loss("focal", gamma=3)`.

    Call it with logits (N, K, H, W) and a mask (N, H, W). Raises ConfigError for an unknown kind
    or field and for a value out of range.
    """
    loss: Loss = decode(Loss, {"kind": kind, **fields}, "loss")
    return loss


def loss_for(loss: Loss, data: Dataset) -> LossFunction:
    """The loss as a function, its class weights counted on the training split."""
    train = data["train"]
    if getattr(loss, "class_weights", None) != "median_frequency":
        return loss.with_class_counts(train.class_pixels)
    pixels = train.class_places.counts  # (I, K) for I images
    around = ((pixels > 0) * pixels.sum(axis=1, keepdims=True)).sum(axis=0)
    return loss.with_class_counts(train.class_pixels, around)
