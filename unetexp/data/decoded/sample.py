"""One decoded image with its mask, and a sequence of them. C channels, H W image size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One image and its mask, at the size that models work with."""

    name: str
    image: Tensor  # (C, H, W) uint8 or uint16
    mask: Tensor  # (H, W) uint8, 255 void
    original: Tensor | None = None  # the mask at the image's own size, where that is another

    @property
    def truth(self) -> Tensor:
        """The mask at the image's own size."""
        return self.mask if self.original is None else self.original


class Samples(Protocol):
    """A sequence of images with masks: a split, or a combination of splits."""

    @property
    def names(self) -> tuple[str, ...]:
        """One per sample."""

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(H, W) of each sample."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def original_shapes(samples: Samples) -> tuple[tuple[int, int], ...]:
    """(H, W) of each image as it was before it was scaled to the working size."""
    shapes: tuple[tuple[int, int], ...] = getattr(samples, "original_shapes", samples.shapes)
    return shapes
