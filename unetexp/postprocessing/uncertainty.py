"""How unsure a model is of each pixel.

The entropy of the class probabilities, averaged over mirror images, divided by that of equal
probabilities: 0 where one class has all, 1 where all are alike (Wang et al., "Aleatoric uncertainty
estimation with test-time augmentation for medical image segmentation", Neurocomputing 2019,
arXiv:1807.07356; theirs is not divided). K classes, H W image size.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from unetexp.postprocessing.labels import Scores


def entropy_of(shares: Scores) -> NDArray[np.float32]:
    """Probabilities (K, H, W) -> (H, W), 0 to 1."""
    logarithms = np.log(np.maximum(shares, np.finfo(np.float32).tiny))
    entropy = -(shares * logarithms).sum(axis=0) / math.log(max(2, len(shares)))
    bounded: NDArray[np.float32] = (entropy.clip(0, 1) + 0.0).astype(np.float32)  # no -0.0
    return bounded
