"""Whole images for validation: grouped by padded size, in batches that fit into memory.

A model pads an image to a multiple of its stride by repeating the border. Here this is done on the
host, so that images of different sizes that are padded to the same one share a batch; the logits
are those of each image alone.

N batch, C channels, K classes, H W padded size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unetexp.compute.distributed import ALONE, Ranks
from unetexp.compute.tiling import Span, cheapest_spans, largest_tile, spans
from unetexp.data import Sample, Samples
from unetexp.data.labels import VOID
from unetexp.models.forward_memory import forward_bytes_per_pixel
from unetexp.models.receptive_field import receptive_radius_px
from unetexp.models.unet import UNet
from unetexp.prefetch import TIMEOUT_S, prefetched

_FORWARD_BYTES = 2**30  # of a forward pass
_COUNT_BYTES = 2**31  # of the loss of one image
_MOST_IMAGES = 16  # a batch: enough for a GPU, and few enough for several ranks to share
_OTHER_MODELS_PIXELS = 2**20  # a batch for a model whose memory is not known
_FAR_PX = 320  # farther pixels change a logit by less than fp32's rounding (see the tests)
_LOADERS = 2  # threads: each holds up to two batches more


@dataclass(frozen=True)
class Limits:
    """How much of the images a model is given at once."""

    stride: int  # sizes are padded to multiples of it
    overlap: int | None  # of tiles, in pixels; None if the images cannot be cut into tiles
    forward_pixels: int  # of a forward pass
    loss_pixels: int  # of an image whose loss is computed in one piece
    forward_bytes: int = 0  # a pixel
    count_bytes: int = 0  # a pixel, of the loss and the counts

    @classmethod
    def of(cls, model: nn.Module, num_classes: int) -> Limits:
        """The limits for a model; one of another package gets neither padding nor tiles."""
        count = 32 * num_classes + 64  # logits, probabilities, truth, ...; labels, cells
        if not isinstance(model, UNet):
            return cls(1, None, _OTHER_MODELS_PIXELS, _COUNT_BYTES // count, 0, count)
        stride = model.encoder.strides[-1]
        margin = min(receptive_radius_px(model), _FAR_PX)
        forward = max(forward_bytes_per_pixel(model), count)
        return cls(
            stride=stride,
            overlap=2 * -(-margin // stride) * stride,
            forward_pixels=_FORWARD_BYTES // forward,
            loss_pixels=_COUNT_BYTES // count,
            forward_bytes=forward,
            count_bytes=count,
        )

    def padded(self, shape: tuple[int, int]) -> tuple[int, int]:
        """(H, W) rounded up to multiples of the stride."""
        height, width = (-(-size // self.stride) * self.stride for size in shape)
        return height, width

    def grid(self, height: int, width: int) -> tuple[Sequence[Span], Sequence[Span]]:
        """The tiles, by rows and columns, in which images of a padded size are computed."""
        if self.overlap is None or height * width <= self.forward_pixels:
            return spans(height, height, 0, 0), spans(width, width, 0, 0)
        return cheapest_spans(height, width, self.overlap, self.forward_pixels, self.stride)

    def batches(self, shapes: Sequence[tuple[int, int]]) -> list[list[int]]:
        """The indices of images of these sizes, in batches of equal padded size."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, shape in enumerate(shapes):
            by_size.setdefault(self.padded(shape), []).append(index)
        batches = []
        for (height, width), indices in by_size.items():
            most = max(1, min(_MOST_IMAGES, self.forward_pixels // (height * width)))
            batches += [indices[start : start + most] for start in range(0, len(indices), most)]
        return batches

    def peak_bytes(self, shape: tuple[int, int], images: int) -> int:
        """What validating a batch of `images` of that size takes beside the model, at most."""
        height, width = self.padded(shape)
        tile = images * largest_tile(*self.grid(height, width))
        forward = self.forward_bytes * tile
        counted = min(height * width, self.loss_pixels)
        return max(forward, self.count_bytes * counted) + 32 * images * height * width


class WholeBatch(NamedTuple):
    """Images of one padded size."""

    indices: list[int]  # in the split
    images: Tensor  # (N, C, H, W) uint8 or uint16, the border repeated on the right and below
    masks: Tensor  # (N, H, W) uint8, void where the image is padded

    def to(self, device: torch.device) -> WholeBatch:
        """The batch on `device`; from page-locked memory without waiting."""
        images, masks = (part.to(device, non_blocking=True) for part in self[1:])
        return WholeBatch(self.indices, images, masks)


def whole_images(
    split: Samples, limits: Limits, ranks: Ranks = ALONE, *, workers: int = 0, pin: bool = False
) -> Iterator[WholeBatch]:
    """The split's images, always in the same batches and order, loaded in advance by threads.

    The ranks take turns, so that each batch is one that a single process would have. `pin` puts
    them into page-locked memory. Raises UnetexpError if a batch cannot be read in time.
    """
    loader = _Loader(split, limits, pin)
    return prefetched(
        loader.batch,
        limits.batches(split.shapes)[ranks.rank :: ranks.world],
        threads=min(workers, _LOADERS),
        timeout_s=TIMEOUT_S,
        describe=loader.describe,
    )


class _Loader:
    """Indices of images of one padded size -> their batch."""

    def __init__(self, split: Samples, limits: Limits, pin: bool) -> None:
        self.split, self.limits, self.pin = split, limits, pin

    def batch(self, indices: list[int]) -> WholeBatch:
        first, *others = (self.split[index] for index in indices)
        size = self.limits.padded((first.mask.shape[0], first.mask.shape[1]))
        image_shape = (len(indices), first.image.shape[0], *size)
        images = torch.empty(image_shape, dtype=first.image.dtype, pin_memory=self.pin)
        masks = torch.empty((len(indices), *size), dtype=torch.uint8, pin_memory=self.pin)
        for number, sample in enumerate((first, *others)):
            _pad_into(images[number].numpy(), masks[number].numpy(), sample)
        return WholeBatch(indices, images, masks)

    def describe(self, indices: list[int]) -> str:
        return f"the image {self.split.names[indices[0]]}"


def _pad_into(image: np.ndarray, mask: np.ndarray, sample: Sample) -> None:
    """Fill image (C, H, W) and mask (H, W) from a sample that is at most as large."""
    height, width = sample.mask.shape
    image[:, :height, :width] = sample.image.numpy()
    image[:, :height, width:] = image[:, :height, width - 1 : width]
    image[:, height:] = image[:, height - 1 : height]
    mask[:height, :width] = sample.mask.numpy()
    mask[:height, width:] = VOID
    mask[height:] = VOID
