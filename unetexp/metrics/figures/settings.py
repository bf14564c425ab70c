"""What the figures of a split depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from pydantic import Field

from unetexp.component import Component


class FigureSettings(Component):
    """How outlines are compared."""

    tolerance: float = Field(
        2.0,
        gt=0,
        description="distance up to which outlines agree, for the normalised surface Dice; in "
        "millimetres where the data knows the size of its pixels, else in pixels",
    )
    outline: Literal["pixels", "contours"] = Field(
        "pixels",
        description="what distances are measured between: pixels, the outermost ones of a mask, as "
        "in MONAI; contours, lines between pixels weighted by length, as in surface-distance",
    )


Images: TypeAlias = int | Literal["auto", "all"]


@dataclass(frozen=True)
class ValidationFigures:
    """Which figures are computed at the end of training, and of how many validation images."""

    settings: FigureSettings
    images: Images = "auto"  # auto: as many as are measured in about half a minute on one core
