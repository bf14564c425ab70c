"""What the index of the cache says about a split. K classes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

DEPTH_STEP = 257  # 8 to 16 bit: 255 * 257 = 65535


class SplitTable(BaseModel):
    """The place of each sample of a split, and its content; one entry per sample."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...]
    heights: tuple[int, ...]
    widths: tuple[int, ...]
    channels: tuple[int, ...]  # as stored
    bits: tuple[int, ...]  # as stored: 8 or 16
    class_pixels: tuple[int, ...]  # K counts over the split
    void_pixels: int
    groups: tuple[str, ...] = ()  # empty where no sample has one
    # where images are scaled to a working size: their own, and the bytes of the compressed masks
    original_heights: tuple[int, ...] = ()
    original_widths: tuple[int, ...] = ()
    original_bytes: tuple[int, ...] = ()

    def mask_sizes(self) -> npt.NDArray[np.int64]:
        """Bytes of each mask, which are its pixels."""
        return np.array(self.heights, np.int64) * np.array(self.widths, np.int64)

    def image_sizes(self) -> npt.NDArray[np.int64]:
        """Bytes of each image."""
        channels, bits = np.array(self.channels, np.int64), np.array(self.bits, np.int64)
        return self.mask_sizes() * channels * (bits // 8)
