"""A whole split in a device's memory, from which the windows of a batch are cut there.

As in the cache, images lie one behind the other in one flat buffer, each at its own size and with
its stored number of channels; masks in another. N windows, C channels, S window side, I images.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unetexp.data import Split
from unetexp.data.decoded.split_table import DEPTH_STEP
from unetexp.data.labels import VOID

_SHARE_OF_FREE_MEMORY = 0.1  # the rest is for the model, and for other trials on the GPU


def resident_bytes(split: Split) -> int:
    """The memory that `split` takes on a device."""
    pixels = sum(height * width for height, width in split.shapes)
    return sum(_stored_bytes(split, index) for index in range(len(split))) + pixels


def fits(split: Split, device: torch.device) -> bool:
    """Whether `split` should be in the memory of `device`: on a GPU, if it takes little of it."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return resident_bytes(split) <= _SHARE_OF_FREE_MEMORY * free


class ResidentSplit:
    """The pixels of `split` on `device`."""

    def __init__(self, split: Split, device: torch.device) -> None:
        self._channels, self._type = split.channels, split.pixel_type
        item = self._type.itemsize
        sizes = [_stored_bytes(split, index) // item for index in range(len(split))]
        areas = [height * width for height, width in split.shapes]
        starts, mask_starts = np.cumsum([0, *sizes]), np.cumsum([0, *areas])
        # int16 stands for uint16, for which torch has few kernels on a GPU.
        stand_in = torch.uint8 if item == 1 else torch.int16
        self._images = torch.empty(int(starts[-1]), dtype=stand_in, device=device)
        self._masks = torch.empty(int(mask_starts[-1]), dtype=torch.uint8, device=device)
        rows = []
        for index, (height, width) in enumerate(split.shapes):
            image, mask = split.stored(index)
            pixels = torch.from_numpy(np.array(image))
            if item > image.itemsize:
                pixels = torch.from_numpy(image * np.uint16(DEPTH_STEP))
            begin, mask_begin = int(starts[index]), int(mask_starts[index])
            self._images[begin : begin + sizes[index]] = pixels.view(stand_in).flatten().to(device)
            self._masks[mask_begin : mask_begin + areas[index]] = (
                torch.from_numpy(np.array(mask)).flatten().to(device)
            )
            plane = 0 if len(image) == 1 else areas[index]  # grey: all channels are the same plane
            rows.append([begin, plane, mask_begin, height, width])
        self._table = torch.tensor(rows).to(device)  # (I, 5)

    def windows(self, places: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """The windows at `places`, (N, 3) int64 on the device: index, top, left.

        Returns what `split.window` gives for each: images (N, C, S, S) and masks (N, S, S).
        """
        index, top, left = places.unbind(1)
        begin, plane, mask_begin, height, width = (
            column.view(-1, 1, 1) for column in self._table.index_select(0, index).unbind(1)
        )
        span = torch.arange(side, device=places.device)
        rows = (top.view(-1, 1) + span).unsqueeze(2)  # (N, S, 1)
        columns = (left.view(-1, 1) + span).unsqueeze(1)  # (N, 1, S)
        outside = (rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)
        pixel = rows.clamp(min=0).minimum(height - 1) * width
        pixel = pixel + columns.clamp(min=0).minimum(width - 1)  # (N, S, S)
        channels = [
            self._images.take(pixel + (begin + plane * number)).masked_fill(outside, 0)
            for number in range(self._channels)
        ]
        masks = self._masks.take(pixel + mask_begin).masked_fill(outside, VOID)
        return torch.stack(channels, dim=1).view(self._type), masks


def _stored_bytes(split: Split, index: int) -> int:
    """Bytes of an image at the split's depth."""
    return split.image_bytes(index)
