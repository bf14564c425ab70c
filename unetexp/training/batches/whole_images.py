"""Whole images for validation: grouped by padded size, in batches that fit into memory.

A model pads an image to a multiple of its stride by repeating the border. Here this is done before,
so that images of different sizes that are padded to the same one share a batch; the logits are
those of each image alone.

N batch, C channels, K classes, H W padded size, h w an image's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unetexp.compute.distributed import ALONE, Ranks
from unetexp.compute.tiling import Span, cheapest_spans, computed_pixels, largest_tile, spans
from unetexp.data import Samples
from unetexp.data.decoded.sample import original_shapes
from unetexp.data.labels import VOID
from unetexp.models.receptive_field import receptive_radius_px
from unetexp.models.unet import UNet
from unetexp.prefetch import TIMEOUT_S, prefetched
from unetexp.runtimes.network import RuntimeNetwork
from unetexp.training.batches.forward_memory import forward_bytes_per_pixel

_FORWARD_BYTES = 2**30  # of a forward pass
_COUNT_BYTES = 2**30  # of the loss of one image
_MOST_IMAGES = 16  # a batch: enough for a GPU, and few enough for several ranks to share
_OTHER_MODELS_PIXELS = 2**20  # a batch for a model whose memory is not known
_HELD_BYTES = 32  # a pixel of a batch, throughout: raw images, some in advance, masks, labels
_TRUTH_BYTES = 8  # a pixel of the images' own size, where they are scaled: masks and labels
_SCALING_BYTES = 2**28  # of the logits of some rows at that size, and of counting them
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
    logit_bytes: int = 0  # a pixel

    @classmethod
    def of(cls, model: nn.Module, num_classes: int) -> Limits:
        """The limits for a model; one of another package gets neither padding nor tiles."""
        count = 32 * num_classes + 64  # logits, probabilities, truth, ...; labels, cells
        if isinstance(model, UNet):
            stride, radius = model.encoder.size_multiple, receptive_radius_px(model)
            forward = max(forward_bytes_per_pixel(model), count)
        elif isinstance(model, RuntimeNetwork):
            stride, radius = model.size_multiple, model.receptive_radius_px
            forward = max(_FORWARD_BYTES // _OTHER_MODELS_PIXELS, count)
        else:
            pixels = _COUNT_BYTES // count
            return cls(1, None, _OTHER_MODELS_PIXELS, pixels, 0, count, 4 * num_classes)
        margin = _FAR_PX if radius is None else min(radius, _FAR_PX)
        return cls(
            stride=stride,
            overlap=2 * -(-margin // stride) * stride,
            forward_pixels=_FORWARD_BYTES // forward,
            loss_pixels=_COUNT_BYTES // count,
            forward_bytes=forward,
            count_bytes=count,
            logit_bytes=4 * num_classes,
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

    def computed_pixels(self, shape: tuple[int, int]) -> int:
        """Pixels that the model computes for an image of that size, with padding and overlaps."""
        return computed_pixels(*self.grid(*self.padded(shape)))

    def fullest(self, split: Samples) -> tuple[list[int], int]:
        """The batch that takes the most memory, and the bytes it takes beside the model."""
        batches = self.batches(split.shapes)
        needs = [self._peak_bytes(split, batch) for batch in batches]
        most = max(needs)
        return batches[needs.index(most)], most

    def _peak_bytes(self, split: Samples, batch: Sequence[int]) -> int:
        height, width = self.padded(split.shapes[batch[0]])
        held = _HELD_BYTES * len(batch) * height * width
        forward = self.forward_bytes * len(batch) * largest_tile(*self.grid(height, width))
        count = self.count_bytes * min(height * width, self.loss_pixels)
        originals = [original_shapes(split)[index] for index in batch]
        if originals != [split.shapes[index] for index in batch]:
            held += _TRUTH_BYTES * sum(h * w for h, w in originals)
            held += self.logit_bytes * len(batch) * height * width
        return held + max(forward, count, _SCALING_BYTES)


class WholeBatch(NamedTuple):
    """Images of one padded size, each still at its own."""

    indices: list[int]  # in the split
    images: list[Tensor]  # (C, h, w) uint8 or uint16 each
    masks: list[Tensor]  # (h, w) uint8 each
    truths: list[Tensor]  # uint8 masks of the images' own sizes; none where that is (h, w)

    def padded(self, limits: Limits, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) and masks (N, H, W) uint8 on `device`.

        The images' borders are repeated on the right and below, and the mask is void there. From
        page-locked memory nothing waits.
        """
        first, count = self.images[0], len(self.images)
        size = limits.padded((first.shape[1], first.shape[2]))
        images = torch.empty(count, first.shape[0], *size, dtype=first.dtype, device=device)
        masks = torch.full((count, *size), VOID, dtype=torch.uint8, device=device)
        for whole, image in zip(images, self.images, strict=True):
            height, width = image.shape[1:]
            whole[:, :height, :width] = image.to(device, non_blocking=True)
            whole[:, :height, width:] = whole[:, :height, width - 1 : width]
            whole[:, height:] = whole[:, height - 1 : height]
        for whole, mask in zip(masks, self.masks, strict=True):
            whole[: mask.shape[0], : mask.shape[1]] = mask.to(device, non_blocking=True)
        return images, masks


def whole_images(
    split: Samples, limits: Limits, ranks: Ranks = ALONE, *, workers: int = 0, pin: bool = False
) -> Iterator[WholeBatch]:
    """The split's images, always in the same batches and order, loaded in advance by threads.

    The ranks take turns, so that each batch is one that a single process would have. `pin` puts
    them into page-locked memory. Raises UnetexpError if a batch cannot be read in time.
    """
    loader = _Loader(split, pin)
    return prefetched(
        loader.batch,
        limits.batches(split.shapes)[ranks.rank :: ranks.world],
        threads=min(workers, _LOADERS),
        timeout_s=TIMEOUT_S,
        describe=loader.describe,
    )


class _Loader:
    """Indices of images -> their batch."""

    def __init__(self, split: Samples, pin: bool) -> None:
        self.split, self.pin = split, pin

    def batch(self, indices: list[int]) -> WholeBatch:
        samples = [self.split[index] for index in indices]
        images = [self._placed(sample.image) for sample in samples]
        masks = [self._placed(sample.mask) for sample in samples]
        originals = [sample.original for sample in samples]
        truths = [self._placed(one) for one in originals if one is not None]
        return WholeBatch(indices, images, masks, truths)

    def _placed(self, part: Tensor) -> Tensor:
        if not self.pin:
            return part
        return torch.empty(part.shape, dtype=part.dtype, pin_memory=True).copy_(part)

    def describe(self, indices: list[int]) -> str:
        return f"the image {self.split.names[indices[0]]}"
