"""How often each value occurs in the masks of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class SplitLabels:
    """How often each stored value occurs in each mask of a split."""

    names: Sequence[str]
    mask_files: Sequence[str]
    counts: npt.NDArray[np.int32]  # (masks, 256)
