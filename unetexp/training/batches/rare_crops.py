"""Crops around a pixel of a rare class, for a chosen share of the samples.

A class is rare if it is not the most frequent one of the training split. K classes.
"""

from __future__ import annotations

import numpy as np

from unetexp.data import Split

_STREAM = 4  # of random numbers: with or without it, the rest of a sample's view is the same


class RareCrops:
    """The places that crops of `split` are drawn around, with `probability` for each sample.

    The class is drawn among the rare ones of the image, in proportion to 1 / its pixels in the
    split; then one of the places kept of it.
    """

    def __init__(self, split: Split, probability: float, seed: int) -> None:
        self._split, self._probability, self._seed = split, probability, seed
        self._weights = 1 / np.maximum(split.class_pixels, 1)  # (K,)
        self._known = split.class_places

    def place(self, epoch: int, index: int, again: int) -> tuple[float, float] | None:
        """The middle of a pixel, row and column, for sample `index`; None: a crop of anywhere.

        None also for an image without a rare class.
        """
        rng = np.random.default_rng((self._seed, epoch, index, again, _STREAM))
        if rng.random() >= self._probability:
            return None
        known = self._known
        weights = self._weights * (np.diff(known.starts[index]) > 0)
        if not weights.any():
            return None
        label = int(rng.choice(len(weights), p=weights / weights.sum()))
        row, column = divmod(int(rng.choice(known.of(index, label))), self._split.shapes[index][1])
        return row + 0.5, column + 0.5
