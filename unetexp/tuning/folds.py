"""Folds over images, those of a group together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def folds_of(groups: Sequence[str], count: int, seed: int = 0) -> list[NDArray[np.intp]]:
    """The indices of each fold's images; as many folds as groups, if those are fewer."""
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    fold_of = {names[place]: number % count for number, place in enumerate(order)}
    found = np.array([fold_of[group] for group in groups])
    return [np.flatnonzero(found == fold) for fold in range(min(count, len(names)))]
