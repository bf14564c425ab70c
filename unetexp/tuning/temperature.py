"""Temperature scaling: one number by which logits are divided, so that probabilities are right.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (arXiv:1706.04599). It changes no
pixel's most probable class. I images, K classes, P pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy.special import log_softmax

from unetexp.data.labels import VOID
from unetexp.metrics.calibration import expected_calibration_error
from unetexp.tuning.cached import CachedProbabilities

_PIXELS = 8192  # of an image, evenly
_RANGE = (0.1, 10.0)


@dataclass(frozen=True)
class Pixels:
    """Some of the pixels of an image that are not void."""

    logits: NDArray[np.float32]  # (K, P)
    truth: NDArray[np.intp]  # (P,)

    def loss(self, temperature: float) -> float:
        """The mean negative log-likelihood; 0 without pixels."""
        if not len(self.truth):
            return 0.0
        scaled = log_softmax(self.logits / temperature, axis=0)
        return float(-scaled[self.truth, np.arange(len(self.truth))].mean())


def pixels_of(images: CachedProbabilities) -> list[Pixels]:
    """Of each image."""
    found = []
    for index in range(len(images)):
        logits, truth = images[index]
        valid = np.flatnonzero(truth.ravel() != VOID)
        valid = valid[:: max(1, -(-len(valid) // _PIXELS))]
        flat = logits.reshape(len(logits), -1)[:, valid]
        found.append(Pixels(flat, truth.ravel()[valid].astype(np.intp)))
    return found


def fitted(images: Sequence[Pixels]) -> float:
    """The temperature with the least loss, each image counting alike."""

    def loss(log_temperature: float) -> float:
        return float(np.mean([image.loss(np.exp(log_temperature)) for image in images]))

    bounds = tuple(np.log(_RANGE))
    return float(np.exp(optimize.minimize_scalar(loss, bounds=bounds, method="bounded").x))


def calibration_error(images: Sequence[Pixels], temperatures: Sequence[float]) -> float:
    """The expected calibration error of all images, each at its own temperature."""
    shares = [
        np.exp(log_softmax(image.logits / temperature, axis=0))
        for image, temperature in zip(images, temperatures, strict=True)
    ]
    truth = np.concatenate([image.truth for image in images])
    return expected_calibration_error(np.concatenate(shares, axis=1), truth)
