"""What all losses share: the call with its checks, and weights of classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Discriminator, Field, PositiveFloat, Tag
from torch import Tensor

from unetexp.component import Component
from unetexp.compute.on_device import constant
from unetexp.errors import ConfigError
from unetexp.training.losses.class_weights import WeightRule, batch_weights, counted_weights
from unetexp.training.losses.masked_batch import MaskedBatch, or_one


def _form_of_weights(given: object) -> str:
    return "name" if isinstance(given, str) else "list"


ClassWeights = Annotated[
    Annotated[WeightRule, Tag("name")] | Annotated[tuple[PositiveFloat, ...], Tag("list")],
    Discriminator(_form_of_weights),  # so that an error names the form that was meant
]


Counts = Sequence[int] | NDArray[np.int64]


class LossComponent(Component):
    """Called with logits and mask; each kind computes the loss of a batch in `_value`."""

    def __call__(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss, a float32 scalar.

        logits (N, K, H, W) of any floating type; mask (N, H, W) of an integer type, 255 is void.
        Raises DataError for shapes that do not match and, on the CPU, for a label that is not a
        class. On another device nothing waits for the labels: there, such a label makes the loss
        NaN.
        """
        batch = MaskedBatch.of(logits, mask)
        value = self._value(batch)
        return value if batch.spoilt is None else value.masked_fill(batch.spoilt, math.nan)

    def with_class_counts(self, counts: Counts, around: Counts | None = None) -> Self:
        """The same loss, its weights by rule taken from `counts`, the pixels per class (K,).

        `around` (K,): the pixels of the images that contain the class; None: every image does.
        Without it weights are taken from each batch. Other losses are returned unchanged.
        """
        return self

    def _value(self, batch: MaskedBatch) -> Tensor:
        raise NotImplementedError


class WeightedLoss(LossComponent):
    """A loss with a pixel-wise mean in it that can be weighted by class."""

    class_weights: ClassWeights = Field(
        "none",
        description="none, balanced (all pixels / (classes that occur * pixels of the class)), "
        "median_frequency (a class's share of the images with it: the median / its own), "
        "effective_number ((1 - beta) / (1 - beta^pixels), mean 1), or a list with one weight per "
        "class; counted on the training split, void left out",
    )
    class_weights_beta: float = Field(
        0.999999,
        gt=0,
        lt=1,
        description="beta of `effective_number`: above about 1 / (1 - beta) pixels more of a class "
        "change its weight little",
    )

    def with_class_counts(self, counts: Counts, around: Counts | None = None) -> Self:
        """As for every loss; ConfigError for a list without one weight per class."""
        if self.class_weights == "none" or not isinstance(self.class_weights, str):
            self._require_weights_for(len(counts))
            return self
        pixels = np.asarray(counts, np.int64)
        whole = np.full(len(pixels), pixels.sum()) if around is None else np.asarray(around)
        weights = counted_weights(self.class_weights, pixels, whole, self.class_weights_beta)
        return self.model_copy(update={"class_weights": tuple(weights)})

    def weights(self, batch: MaskedBatch) -> Tensor:
        """(K,) float32."""
        if isinstance(self.class_weights, str):
            beta = self.class_weights_beta
            return batch_weights(self.class_weights, batch.counts, batch.pixels_around, beta)
        self._require_weights_for(len(batch.counts))
        return constant(self.class_weights, batch.counts)

    def _require_weights_for(self, num_classes: int) -> None:
        given = self.class_weights
        if not isinstance(given, str) and len(given) != num_classes:
            raise ConfigError(
                f"loss.class_weights: {len(given)} weights are given for {num_classes} classes: "
                "give one weight per class."
            )

    def cross_entropy(self, batch: MaskedBatch, label_smoothing: float) -> Tensor:
        """The weighted mean over valid pixels as torch defines it: sum(w x) / sum(w)."""
        weights = self.weights(batch)
        values = batch.negative_log_likelihood(weights, label_smoothing)
        return values.sum() / or_one((weights * batch.counts).sum())
