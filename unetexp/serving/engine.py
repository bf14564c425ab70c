"""The model behind a server.

C channels, K classes, H W image size.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unetexp.data.collection import Labels, RawImage
from unetexp.models.image_spec import ImageSpec


@dataclass(frozen=True)
class Prediction:
    """What a model says of an image."""

    labels: Labels  # (H, W)
    probabilities: NDArray[np.float32] | None  # (K, H, W), where they were asked for


class Engine(Protocol):
    """A model that predicts; used by one thread at a time."""

    name: str  # the model's address
    runtime: str  # with its version

    @property
    def spec(self) -> ImageSpec:
        """What it takes."""

    def group(self, image: RawImage) -> Hashable:
        """Images of equal groups can be predicted together; None: only by itself."""

    def predict(
        self, images: Sequence[RawImage], probabilities: Sequence[bool]
    ) -> list[Prediction]:
        """Of conformed images (C, H, W) of one group; `probabilities` says which get any."""
