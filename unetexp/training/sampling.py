"""How often an image is drawn: each as often as the others, or those with rare classes more often.

I images, K classes.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from unetexp.component import Component


class Uniform(Component):
    """Every image once in a pass."""

    kind: Literal["uniform"] = "uniform"


class RareClasses(Component):
    """Images with rare classes more often: repeat-factor sampling (Gupta et al., LVIS, 2019).

    A class that a share f of the images has is repeated max(1, (threshold / f)^power) times, an
    image as often as the rarest of its classes (arXiv:1908.03195, with power 0.5). Unlike a draw
    with replacement, every image still comes in each pass, and repeats are spread evenly. An epoch
    has as many steps as without it: as much of the pass, which is longer.
    """

    kind: Literal["rare_classes"] = "rare_classes"
    threshold: float = Field(
        0.5, gt=0, le=1, description="share of the images below which a class is rare"
    )
    power: float = Field(
        0.5,
        ge=0,
        le=1,
        description="0.5: as in the paper; 1: a rare class's images come as often as if the share "
        "`threshold` of the images had it; 0: every image once",
    )

    def repeats(self, class_pixels: NDArray[np.int64]) -> NDArray[np.float64]:
        """How often each image is drawn in a pass, (I,), at least 1; `class_pixels` is (I, K)."""
        present = class_pixels > 0
        shares = present.mean(axis=0)
        of_class = np.maximum(1, (self.threshold / np.where(shares > 0, shares, 1)) ** self.power)
        repeats: NDArray[np.float64] = np.where(present, of_class, 1).max(axis=1)
        return repeats


Sampler = Annotated[Uniform | RareClasses, Field(discriminator="kind")]
