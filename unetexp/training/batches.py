"""Batches: cut out on the host as raw pixels, turned into model input on the device.

N batch, C channels, S window side, P crop side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unetexp.compute.distributed import ALONE, Ranks
from unetexp.data import Dataset, Split
from unetexp.errors import ConfigError
from unetexp.models.encoder_weights import Normalization, to_input
from unetexp.prefetch import TIMEOUT_S, prefetched
from unetexp.training.augmentation import Augment, jitter_colour, warp
from unetexp.training.config import TrainConfig


class RawBatch(NamedTuple):
    """Windows as stored in the data, with the warp and colour to be applied to each."""

    images: Tensor  # (N, C, S, S) uint8 or uint16
    masks: Tensor  # (N, S, S) uint8
    theta: Tensor  # (N, 2, 3) float32
    colour: Tensor  # (N, 3) float32


class _Windows:
    """(epoch, index) of samples -> the batch of their windows in that epoch."""

    def __init__(self, split: Split, augment: Augment, seed: int, pin: bool) -> None:
        self.split, self.augment, self.seed, self.pin = split, augment, seed, pin

    def batch(self, keys: list[tuple[int, int]]) -> RawBatch:
        windows = [self._window(epoch, index) for epoch, index in keys]
        return RawBatch(*(_stacked(parts, self.pin) for parts in zip(*windows, strict=True)))

    def describe(self, keys: list[tuple[int, int]]) -> str:
        names = [self.split.names[index] for _, index in keys]
        return f"the batch of {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"

    def _window(self, epoch: int, index: int) -> RawBatch:
        height, width = self.split.shapes[index]
        view = self.augment.draw(self.seed, epoch, index, height, width)
        side = self.augment.window_px
        image, mask = self.split.window(index, view.top, view.left, side, side)
        return RawBatch(image, mask, torch.tensor(view.theta), torch.tensor(view.colour))


def _stacked(parts: Sequence[Tensor], pin: bool) -> Tensor:
    """N parts stacked to (N, ...), in page-locked memory if `pin`. Uses no further threads."""
    whole = torch.empty((len(parts), *parts[0].shape), dtype=parts[0].dtype, pin_memory=pin)
    np.stack([part.numpy() for part in parts], out=whole.numpy())
    return whole


class _Order:
    """A sampler of this rank's share of each micro-batch of (epoch, index).

    `accumulation` micro-batches make up one step's batch.
    """

    def __init__(
        self, count: int, batch_size: int, accumulation: int, seed: int, ranks: Ranks
    ) -> None:
        self.count, self.seed, self.epoch, self.ranks = count, seed, 0, ranks
        self.steps = max(1, count // batch_size)
        self.shape = (self.steps * accumulation, batch_size // accumulation)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        # Images that do not fill a batch are skipped in this epoch; a set below one batch repeats.
        for micro_batch in np.resize(order, self.shape):
            share = micro_batch.reshape(self.ranks.world, -1)[self.ranks.rank]
            yield [(self.epoch, int(index)) for index in share]


class TrainBatches:
    """The training split as micro-batches, `accumulation` for each of an epoch's `steps`.

    `workers` threads prepare them in advance; their number does not affect the content. Raises
    ConfigError if the ranks cannot share a micro-batch evenly.
    """

    def __init__(
        self,
        split: Split,
        config: TrainConfig,
        *,
        workers: int = 0,
        pin: bool = False,
        ranks: Ranks = ALONE,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        require_even_shares(config.batch_size, config.accumulation, ranks.world)
        self._order = _Order(len(split), config.batch_size, config.accumulation, config.seed, ranks)
        self.steps = self._order.steps
        self._windows = _Windows(split, config.augment, config.seed, pin)
        self._workers, self._timeout_s = workers, timeout_s

    def epoch(self, epoch: int) -> Iterator[RawBatch]:
        """The micro-batches of one pass; the same `epoch` gives the same ones.

        Raises UnetexpError if one is not ready within `timeout_s` seconds, as on a hanging disk.
        """
        self._order.epoch = epoch
        return prefetched(
            self._windows.batch,
            self._order,
            threads=self._workers,
            timeout_s=self._timeout_s,
            describe=self._windows.describe,
        )


def require_even_shares(batch_size: int, accumulation: int, world: int) -> None:
    """ConfigError unless `world` ranks get the same number of images of each micro-batch."""
    images = batch_size // accumulation
    if images % world:
        parts = f"batch_size is {batch_size}"
        parts += f" in {accumulation} micro-batches of {images}" if accumulation > 1 else ""
        raise ConfigError(
            f"{parts}: {world} GPUs cannot share {images} images evenly. Choose a batch_size that "
            f"{accumulation * world} divides, or another number of GPUs per trial."
        )


def augmented(
    batch: RawBatch, data: Dataset, crop_px: int, normalization: Normalization, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Model input (N, C, P, P) float32 and labels (N, P, P) int64 of a raw batch, on `device`."""
    images, masks, theta, colour = (part.to(device, non_blocking=True) for part in batch)
    crops, labels = warp(images.float() / data.image_max, masks, theta, crop_px)
    return to_input(jitter_colour(crops, colour), normalization), labels
