"""Pairs of masks that are neither equal nor empty, for figures of outlines and objects."""

import numpy as np
from scipy import ndimage


def ellipses():
    """Truth and prediction (40, 48): an ellipse, and a shifted, fatter one with a far-off spot."""
    rows, columns = np.mgrid[:40, :48]
    truth = ((rows - 20) / 9) ** 2 + ((columns - 24) / 14) ** 2 < 1
    prediction = ((rows - 18.5) / 10) ** 2 + ((columns - 27) / 13) ** 2 < 1
    prediction[35:39, 2:6] = True
    return truth, prediction


def clouds(seed):
    """Random areas of any shape and size, some at the image's edge."""
    rng = np.random.default_rng(seed)
    shape = rng.integers(20, 60, 2)
    blur, level = rng.uniform(0.7, 6), rng.uniform(-0.05, 0.1)
    return tuple(
        ndimage.gaussian_filter(rng.normal(size=shape), blur) > min(level, 0.02) for _ in range(2)
    )
