"""Batches: cut out on the host as raw pixels, turned into model input on the device.

I images of a split, N batch, C channels, S window side, P crop side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unetexp.compute.distributed import ALONE, Ranks
from unetexp.data import Dataset, Split
from unetexp.errors import ConfigError
from unetexp.models.weights.resolution import Normalization, to_input
from unetexp.prefetch import TIMEOUT_S, prefetched
from unetexp.training.augmenting.augmentation import Augment, drop_channels, jitter_colour, warp
from unetexp.training.augmenting.effects import apply_effects, elastic_shifts
from unetexp.training.batches.cpu_augmentation import views_on_cpu
from unetexp.training.batches.order import Order, SampleKey
from unetexp.training.batches.rare_crops import RareCrops
from unetexp.training.batches.resident import ResidentSplit, fits
from unetexp.training.config import TrainConfig

T = TypeVar("T")
_CPU = torch.device("cpu")


class RawBatch(NamedTuple):
    """Windows as stored in the data, with the warp and colour to be applied to each."""

    images: Tensor  # (N, C, S, S) uint8 or uint16
    masks: Tensor  # (N, S, S) uint8
    theta: Tensor  # (N, 2, 3) float32
    colour: Tensor
    """(N, 3) float32; (N, 4) with modality dropout: the missing channel, or -1; (N, 10) with
    effects: that channel and the row of `Effects`."""


class Windows:
    """Keys of samples -> the batch of their windows, cut on the host."""

    def __init__(self, split: Split, augment: Augment, seed: int, pin: bool) -> None:
        self.split, self.augment, self.seed, self.pin = split, augment, seed, pin
        self.rare_crops = RareCrops(split, augment.rare_crop, seed) if augment.rare_crop else None

    def batch(self, keys: list[SampleKey]) -> RawBatch:
        side, split = self.augment.window_px, self.split
        images = torch.empty(
            (len(keys), split.channels, side, side), dtype=split.pixel_type, pin_memory=self.pin
        )
        masks = torch.empty((len(keys), side, side), dtype=torch.uint8, pin_memory=self.pin)
        views = self.views(keys)
        places = views[:, :3].long().tolist()
        for (index, top, left), image, mask in zip(places, images, masks, strict=True):
            split.window(index, top, left, side, side, (image, mask))
        warp_and_colour = (part.contiguous() for part in _warp_and_colour(views))
        return RawBatch(
            images, masks, *(p.pin_memory() if self.pin else p for p in warp_and_colour)
        )

    def views(self, keys: list[SampleKey]) -> Tensor:
        """(N, 12) float64: index, top, left, theta row by row and the colour factors.

        (N, 13) with modality dropout: the channel that is missing, or -1. (N, 19) with effects.
        """
        channels, has_effects, rows = self.split.channels, self.augment.has_effects, []
        for epoch, index, again in keys:
            shape = self.split.shapes[index]
            around = self.rare_crops.place(epoch, index, again) if self.rare_crops else None
            view = self.augment.draw(self.seed, epoch, index, *shape, again=again, around=around)
            rows.append([index, view.top, view.left, *view.theta[0], *view.theta[1], *view.colour])
            if self.augment.modality_dropout or has_effects:
                dropped = self.augment.draw_dropped(self.seed, epoch, index, channels, again)
                rows[-1].append(-1 if dropped is None else dropped)
            if has_effects:
                rows[-1] += self.augment.draw_effects(self.seed, epoch, index, again)
        views = torch.tensor(rows, dtype=torch.float64)
        return views.pin_memory() if self.pin else views

    def describe(self, keys: list[SampleKey]) -> str:
        names = [self.split.names[key.sample] for key in keys]
        return f"the batch of {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def _warp_and_colour(views: Tensor) -> tuple[Tensor, Tensor]:
    """theta (N, 2, 3) and colour (N, 3, 4 or 10) of `views`, both float32."""
    rounded = views.float()
    return rounded[:, 3:9].view(-1, 2, 3), rounded[:, 9:]


def cut_on_device(views: Tensor, resident: ResidentSplit, side: int) -> RawBatch:
    """The batch of `views` (N, 12, 13 or 19) with windows of `side` px, cut where the split is."""
    images, masks = resident.windows(views[:, :3].long(), side)
    return RawBatch(images, masks, *_warp_and_colour(views))


class TrainBatches:
    """The training split as micro-batches, `accumulation` for each of an epoch's `steps`.

    `workers` threads prepare them in advance; their number does not affect the content. For a GPU
    the whole split is kept in its memory if that is little of what is free, else each batch is
    copied there during the step before. Raises ConfigError if the ranks cannot share a micro-batch
    evenly.
    """

    def __init__(
        self,
        split: Split,
        config: TrainConfig,
        *,
        workers: int = 0,
        device: torch.device = _CPU,
        ranks: Ranks = ALONE,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        require_even_shares(config.batch_size, config.accumulation, ranks.world)
        self._order = Order(split, config, ranks)
        self.steps = self._order.steps
        self._windows = Windows(split, config.augment, config.seed, pin=device.type == "cuda")
        self._resident = ResidentSplit(split, device) if fits(split, device) else None
        self._device, self._workers, self._timeout_s = device, workers, timeout_s

    @property
    def augment(self) -> Augment:
        """What draws the views."""
        return self._windows.augment

    @property
    def seed(self) -> int:
        """Of the views; -1 where that of the order is another one."""
        return self._windows.seed if self._windows.seed == self._order.seed else -1

    @property
    def repeats(self) -> NDArray[np.float64] | None:
        """How often each image is drawn in a pass, (I,); None: once."""
        return self._order.repeats

    def epoch(self, epoch: int) -> Iterator[RawBatch]:
        """The micro-batches of one pass; the same `epoch` gives the same ones.

        Raises UnetexpError if one is not ready within `timeout_s` seconds, as on a hanging disk.
        """
        self._order.epoch = epoch
        if self._resident is not None:
            side = self._windows.augment.window_px
            for views in self._prepared(self._windows.views):
                yield cut_on_device(views.to(self._device, non_blocking=True), self._resident, side)
        elif self._device.type == "cuda":
            yield from copied_ahead(self._prepared(self._windows.batch), self._device)
        else:
            yield from self._prepared(self._windows.batch)

    def _prepared(self, work: Callable[[list[SampleKey]], T]) -> Iterator[T]:
        return prefetched(
            work,
            self._order,
            threads=self._workers,
            timeout_s=self._timeout_s,
            describe=self._windows.describe,
        )


def copied_ahead(batches: Iterator[RawBatch], device: torch.device) -> Iterator[RawBatch]:
    """The same batches on a GPU; each is copied on a stream of its own during the one before."""
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    current = torch.cuda.current_stream(device)
    ahead: RawBatch | None = None
    for batch in batches:
        ready = ahead
        with torch.cuda.stream(copying):
            ahead = RawBatch(*(part.to(device, non_blocking=True) for part in batch))
        if ready is not None:
            yield ready
        current.wait_stream(copying)
        for part in ahead:
            part.record_stream(current)  # its memory is not reused before `current` is done
    if ahead is not None:
        yield ahead


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
    if device.type == "cpu":
        colour, dropped, effects = _parts(batch.colour)
        seen = batch._replace(colour=colour)
        inputs, labels = views_on_cpu(*seen, crop_px, data.image_max, normalization, effects)
        return drop_channels(inputs, dropped), labels
    there = RawBatch(*(part.to(device, non_blocking=True) for part in batch))
    return augmented_together(there, data.image_max, crop_px, normalization)


def augmented_together(
    batch: RawBatch, image_max: int, crop_px: int, normalization: Normalization
) -> tuple[Tensor, Tensor]:
    """The same of all samples at once, where the batch is: the host waits for nothing."""
    colour, dropped, effects = _parts(batch.colour)
    shifts = elastic_shifts(effects, crop_px)
    crops, labels = warp(
        batch.images.float() / image_max, batch.masks, batch.theta, crop_px, shifts
    )
    inputs = to_input(apply_effects(jitter_colour(crops, colour), effects), normalization)
    return drop_channels(inputs, dropped), labels


def _parts(changes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Colour (N, 3), missing channel (N, 1 or 0) and effects (N, 6 or 0) of a raw batch."""
    return changes[:, :3], changes[:, 3:4], changes[:, 4:]
