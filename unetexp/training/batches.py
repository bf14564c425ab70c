"""Batches: cut on the host as raw pixels, made into model input on the device.

N batch, C channels, S window side, P crop side, H W image size.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from unetexp.data import Dataset, Samples, Split
from unetexp.errors import ConfigError
from unetexp.models.encoder_weights import Normalization, to_input
from unetexp.short_folder import short_parents
from unetexp.training.augmentation import Augment, jitter_colour, warp
from unetexp.training.config import TrainConfig
from unetexp.training.distributed import ALONE, Ranks

_LONGEST = 71  # bytes of a temporary folder; multiprocessing's sockets take 32 more


class RawBatch(NamedTuple):
    """Windows as they lie in the data, with the warp and colour to be applied to each."""

    images: Tensor  # (N, C, S, S) uint8 or uint16
    masks: Tensor  # (N, S, S) uint8
    theta: Tensor  # (N, 2, 3) float32
    colour: Tensor  # (N, 3) float32


class _Windows(TorchDataset[RawBatch]):
    """(epoch, index) -> that sample's window in that epoch."""

    def __init__(self, split: Split, augment: Augment, seed: int) -> None:
        self.split, self.augment, self.seed = split, augment, seed

    def __getitem__(self, key: tuple[int, int]) -> RawBatch:
        epoch, index = key
        height, width = self.split.shapes[index]
        view = self.augment.draw(self.seed, epoch, index, height, width)
        side = self.augment.window_px
        image, mask = self.split.window(index, view.top, view.left, side, side)
        return RawBatch(image, mask, torch.tensor(view.theta), torch.tensor(view.colour))


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
        # What does not fill a batch waits for another epoch; a set smaller than one batch repeats.
        for micro_batch in np.resize(order, self.shape):
            share = micro_batch.reshape(self.ranks.world, -1)[self.ranks.rank]
            yield [(self.epoch, int(index)) for index in share]


class TrainBatches:
    """The training split as micro-batches, `accumulation` to each of an epoch's `steps`.

    Raises ConfigError where the ranks cannot share a micro-batch evenly.
    """

    def __init__(
        self,
        split: Split,
        config: TrainConfig,
        *,
        workers: int = 0,
        pin: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        require_even_shares(config.batch_size, config.accumulation, ranks.world)
        self._order = _Order(len(split), config.batch_size, config.accumulation, config.seed, ranks)
        self.steps = self._order.steps
        self._loader: DataLoader[RawBatch] = DataLoader(
            _Windows(split, config.augment, config.seed),
            batch_sampler=self._order,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin,
            worker_init_fn=_use_short_folder,
        )

    def epoch(self, epoch: int) -> Iterator[RawBatch]:
        """The micro-batches of one pass; the same `epoch` gives the same ones."""
        self._order.epoch = epoch
        for batch in self._loader:
            yield RawBatch(*batch)


def _use_short_folder(_worker: int) -> None:
    """Batches leave a worker through a socket in the temporary folder, whose path may be long."""
    shortest = short_parents(_LONGEST)
    if shortest and shortest[0] != Path(tempfile.gettempdir()):
        tempfile.tempdir = str(shortest[0])


def require_even_shares(batch_size: int, accumulation: int, world: int) -> None:
    """ConfigError unless `world` ranks get the same number of images of each micro-batch."""
    images = batch_size // accumulation
    if images % world:
        parts = f"batch_size is {batch_size}"
        parts += f" in {accumulation} micro-batches of {images}" if accumulation > 1 else ""
        raise ConfigError(
            f"{parts}: {world} GPUs cannot share {images} images evenly. Choose a batch_size that "
            f"{accumulation * world} divides, or another number of GPUs a trial."
        )


def augmented(
    batch: RawBatch, data: Dataset, crop_px: int, normalization: Normalization, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Model input (N, C, P, P) float32 and labels (N, P, P) int64 of a raw batch, on `device`."""
    images, masks, theta, colour = (part.to(device, non_blocking=True) for part in batch)
    crops, labels = warp(images.float() / data.image_max, masks, theta, crop_px)
    return to_input(jitter_colour(crops, colour), normalization), labels


def whole_images(
    split: Samples, batch_size: int, ranks: Ranks = ALONE
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """The split's images at their own size, in batches of equal shape.

    Yields indices, raw images (N, C, H, W) and masks (N, H, W); always in the same order. The
    ranks take turns, so that each batch is one that a single process would have.
    """
    by_shape: dict[tuple[int, int], list[int]] = {}
    for index, shape in enumerate(split.shapes):
        by_shape.setdefault(shape, []).append(index)
    batches = [
        indices[start : start + batch_size]
        for indices in by_shape.values()
        for start in range(0, len(indices), batch_size)
    ]
    for chosen in batches[ranks.rank :: ranks.world]:
        samples = [split[index] for index in chosen]
        images = torch.stack([sample.image for sample in samples])
        yield chosen, images, torch.stack([sample.mask for sample in samples])
