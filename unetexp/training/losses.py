"""Losses on logits, for masks with void pixels.

Every loss computes in float32, also under autocast, and leaves void pixels out of its sums and
its counts. Means over classes are taken over those that occur in the batch's masks.
A batch without a single valid pixel has the loss 0 and gradients 0.

Letters: N batch, K classes, H W height and width, P = N H W pixels of the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Discriminator, Field, PositiveFloat, Tag
from torch import Tensor

from unetexp.component import Component, decode
from unetexp.errors import ConfigError
from unetexp.training.masked_batch import MaskedBatch, or_one, sum_over_pixels


def _form_of_weights(given: object) -> str:
    return "name" if isinstance(given, str) else "list"


ClassWeights = Annotated[
    Annotated[Literal["none", "balanced"], Tag("name")]
    | Annotated[tuple[PositiveFloat, ...], Tag("list")],
    Discriminator(_form_of_weights),  # so that an error names the form that was meant
]

_SMALLEST_MISS = 1e-7  # keeps the slope of miss ** gamma finite where gamma < 1


class _Loss(Component):
    """Called with logits and mask; each kind computes the loss of a batch in `_value`."""

    def __call__(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss, a float32 scalar.

        logits (N, K, H, W) of any floating type; mask (N, H, W) of an integer type, 255 is void.
        Raises DataError for shapes that do not match and for a label that is not a class.
        """
        return self._value(MaskedBatch.of(logits, mask))

    def with_class_counts(self, counts: Sequence[int] | NDArray[np.int64]) -> Self:
        """The same loss, its `balanced` weights taken from `counts`, the pixels per class (K,).

        Without it they are taken from each batch. Other losses are returned unchanged.
        """
        return self

    def _value(self, batch: MaskedBatch) -> Tensor:
        raise NotImplementedError


class _WeightedLoss(_Loss):
    """A loss with a pixel-wise mean in it that can be weighted by class."""

    class_weights: ClassWeights = Field(
        "none",
        description="none, balanced (all pixels / (classes that occur * pixels of the class)), "
        "or a list with one weight per class",
    )

    def with_class_counts(self, counts: Sequence[int] | NDArray[np.int64]) -> Self:
        """As for every loss; ConfigError for a list without one weight per class."""
        if self.class_weights != "balanced":
            self._require_weights_for(len(counts))
            return self
        weights = _balanced(torch.as_tensor(counts, dtype=torch.float64))
        return self.model_copy(update={"class_weights": tuple(weights.tolist())})

    def _weights(self, batch: MaskedBatch) -> Tensor:
        """(K,) float32."""
        if self.class_weights == "none":
            return torch.ones_like(batch.counts)
        if self.class_weights == "balanced":
            return _balanced(batch.counts)
        self._require_weights_for(len(batch.counts))
        return batch.counts.new_tensor(self.class_weights)

    def _require_weights_for(self, num_classes: int) -> None:
        given = self.class_weights
        if not isinstance(given, str) and len(given) != num_classes:
            raise ConfigError(
                f"loss.class_weights: {len(given)} weights are given for {num_classes} classes: "
                "give one weight per class."
            )

    def _cross_entropy(self, batch: MaskedBatch, label_smoothing: float) -> Tensor:
        """The weighted mean over valid pixels as torch defines it: sum(w x) / sum(w)."""
        weights = self._weights(batch)
        values = batch.negative_log_likelihood(weights, label_smoothing)
        return values.sum() / or_one((weights * batch.counts).sum())


class CrossEntropy(_WeightedLoss):
    """Softmax cross-entropy, mean over valid pixels; torch's definition in every option."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of the target that is spread evenly over all classes"
    )

    def _value(self, batch: MaskedBatch) -> Tensor:
        return self._cross_entropy(batch, self.label_smoothing)


class BceDice(_Loss):
    """One-vs-rest binary cross-entropy plus the `dice` loss.

    The first term reads the logits as K independent sigmoids: mean over valid pixels, then over
    the classes that occur.
    """

    kind: Literal["bce_dice"] = "bce_dice"

    def _value(self, batch: MaskedBatch) -> Tensor:
        values = F.binary_cross_entropy_with_logits(
            batch.logits, batch.truth.float(), reduction="none"
        )
        sums = sum_over_pixels(values * batch.valid.unsqueeze(1))
        bce = batch.mean_over_present(sums / or_one(batch.valid.sum()))
        return bce + _dice(batch)


class Dice(_Loss):
    """Soft Dice on softmax probabilities (Milletari et al., V-Net, arXiv:1606.04797).

    1 - 2 sum(p t) / (sum(p) + sum(t)), sums over the pixels of the whole batch, mean over the
    classes that occur. Unlike V-Net, p and t are not squared; as a class that occurs has
    sum(t) >= 1, no smoothing term is needed.
    """

    kind: Literal["dice"] = "dice"

    def _value(self, batch: MaskedBatch) -> Tensor:
        return _dice(batch)


class DiceCE(_WeightedLoss):
    """Cross-entropy (weighted on request) plus the `dice` loss, as in nnU-Net."""

    kind: Literal["dice_ce"] = "dice_ce"

    def _value(self, batch: MaskedBatch) -> Tensor:
        return self._cross_entropy(batch, label_smoothing=0.0) + _dice(batch)


class Focal(_WeightedLoss):
    """Focal loss on softmax probabilities (Lin et al., arXiv:1708.02002): (1 - p)^gamma (-log p).

    The paper has one sigmoid per anchor and divides by the number of objects; here p is the
    softmax probability of the label, and the (weighted) mean over valid pixels is taken. For two
    classes this is the paper's formula at the difference of the two logits.
    """

    kind: Literal["focal"] = "focal"
    gamma: float = Field(
        2.0,
        ge=0,
        le=10,
        description="how strongly well-classified pixels are down-weighted; 0: not at all",
    )

    def _value(self, batch: MaskedBatch) -> Tensor:
        nll = batch.negative_log_likelihood()
        miss = (-torch.expm1(-nll)).clamp(min=_SMALLEST_MISS)  # 1 - p without cancellation
        weights = self._weights(batch)
        per_pixel = weights[batch.labels.where(batch.valid, 0)]  # void pixels have nll 0
        values = per_pixel * miss**self.gamma * nll
        return values.sum() / or_one((weights * batch.counts).sum())


class Tversky(_Loss):
    """Tversky loss (Salehi et al., arXiv:1706.05721): 1 - TP / (TP + alpha FP + beta FN).

    Soft counts of softmax probabilities over the whole batch, mean over the classes that occur.
    alpha = beta = 0.5 is the `dice` loss.
    """

    kind: Literal["tversky"] = "tversky"
    alpha: float = Field(0.3, ge=0, le=10, description="weight of false positives")
    beta: float = Field(0.7, ge=0.01, le=10, description="weight of false negatives")

    def _value(self, batch: MaskedBatch) -> Tensor:
        return _tversky(batch, self.alpha, self.beta)


class Lovasz(_Loss):
    """Lovasz-softmax (Berman et al., arXiv:1705.08790), a surrogate of the Jaccard loss.

    Computed on all pixels of the batch at once, mean over the classes that occur.
    """

    kind: Literal["lovasz"] = "lovasz"

    def _value(self, batch: MaskedBatch) -> Tensor:
        probabilities = batch.probabilities()
        present = (batch.counts > 0).nonzero().flatten().tolist()
        extensions = [
            _lovasz_extension(probabilities[:, label].flatten(), batch.truth[:, label].flatten())
            for label in present
        ]
        return torch.stack(extensions).mean() if extensions else probabilities.sum()


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


def _balanced(counts: Tensor) -> Tensor:
    """Weights (K,) as scikit-learn's `balanced`: n / (present * count); 1 for absent classes."""
    present = counts > 0
    weights = counts.sum() / (present.sum() * or_one(counts))
    return torch.where(present, weights, 1.0)


def _tversky(batch: MaskedBatch, alpha: float, beta: float) -> Tensor:
    probabilities = batch.probabilities()
    hits = sum_over_pixels(probabilities * batch.truth)
    false_positives = sum_over_pixels(probabilities) - hits
    misses = batch.counts - hits
    size = hits + alpha * false_positives + beta * misses
    return batch.mean_over_present(1 - hits / torch.where(batch.counts > 0, size, 1))


def _dice(batch: MaskedBatch) -> Tensor:
    return _tversky(batch, 0.5, 0.5)


def _lovasz_extension(probabilities: Tensor, truth: Tensor) -> Tensor:
    """One class's Lovasz extension of the Jaccard loss; both (P,), the class occurs in `truth`.

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
