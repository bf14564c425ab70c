"""What the base configuration costs: seconds and memory of a few steps at full size.

On a GPU the micro-batch is measured as it is, and halved while memory runs out. A CPU process
that asks for too much memory is killed, not told, and a large crop may take minutes a step: there
the measurement climbs from small sizes to the full one, and stops and extrapolates where the next
step would take more time or memory than there is.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import psutil
import torch

from sweeps.preflight.smoke_test import SIDE_PX, miniature
from unetexp.compute.upsampling import upsampled_labels
from unetexp.data import Dataset, Samples
from unetexp.data.decoded.chosen import ChosenSamples
from unetexp.data.decoded.sample import original_shapes
from unetexp.metrics.segmentation import SegmentationMetrics
from unetexp.models.weights.resolution import input_normalization
from unetexp.system.cuda_errors import is_out_of_memory
from unetexp.system.machine import available_memory_bytes
from unetexp.training.batches.train_batches import TrainBatches
from unetexp.training.batches.whole_images import Limits
from unetexp.training.config import TrainConfig
from unetexp.training.loop import train_epoch
from unetexp.training.losses import loss_for
from unetexp.training.state import TrainState
from unetexp.training.validation import evaluate

_GROWTH = 4  # pixels of a size against those of the size before
_RUNS = 2  # measured, after one that warms up
_CUDA_CONTEXT_BYTES = 3 * 2**28  # kernels and libraries, which torch does not count
_SPARE = 0.9  # of the memory that is free: the rest is for everything else


@dataclass(frozen=True)
class StepCost:
    """The cost of one configuration on one device."""

    micro_batch: int  # images, the largest tried that memory suffices for
    step_s: float  # of training, a micro-batch
    val_s: float  # of validation, an image
    peak_bytes: int  # the GPU's memory with CUDA's own; on the CPU of the process
    device_bytes: int | None  # a GPU's memory that trials may take; None on the CPU
    extrapolated: bool = False  # the full size was not run itself


@dataclass(frozen=True)
class Size:
    """A micro-batch: square crops of `side_px`."""

    side_px: int
    images: int

    @property
    def pixels(self) -> int:
        return self.side_px**2 * self.images


@dataclass(frozen=True)
class Cost:
    """What training on a micro-batch of so many pixels takes."""

    pixels: int
    seconds: float
    peak_bytes: int


def measure_step_cost(
    config: TrainConfig,
    data: Dataset,
    device: torch.device,
    images: int,
    patience_s: float,
    models: int = 1,
) -> StepCost:
    """Measure `config` with micro-batches of `images` on one device.

    The memory is that of a trial that holds so many `models`, of which one at a time is trained.

    Raises torch.OutOfMemoryError where a GPU does not hold one image.
    """
    bench = _Bench(config, data, device)
    full = Size(config.augment.crop_px, images)
    others = (models - 1) * bench.bytes_at_rest()
    if device.type == "cuda":
        ballast = torch.empty(others, dtype=torch.uint8, device=device)
        cost, images = _halved_until_it_fits(bench.train, full)
        val_s = bench.validate(None)
        bench.validate_fullest()
        free, _ = torch.cuda.mem_get_info(device)
        usable = free + torch.cuda.memory_reserved(device) + _CUDA_CONTEXT_BYTES
        peak = torch.cuda.max_memory_reserved(device) + _CUDA_CONTEXT_BYTES
        del ballast
        return StepCost(images, cost.seconds, val_s, peak, usable)
    memory = available_memory_bytes() + psutil.Process().memory_info().rss - others
    costs = climb(bench.train, full, patience_s, round(_SPARE * memory))
    images = largest_fitting(costs, full, round(_SPARE * memory))
    cost = expected(costs, Size(full.side_px, images).pixels)
    # Of a trial that validates: what training left behind stays.
    resting = max(bench.at_rest_bytes, psutil.Process().memory_info().rss)
    # Validation is a third of training's work; half of the patience is left for it.
    pixels = 3 * patience_s / 2 / (1 + _RUNS) * costs[-1].pixels / costs[-1].seconds
    val_s = bench.validate(max(SIDE_PX, math.isqrt(round(pixels))))
    peak = max(cost.peak_bytes, resting + bench.fullest[1]) + others
    cut_short = costs[-1].pixels < cost.pixels
    return StepCost(images, cost.seconds, val_s, peak, None, cut_short)


def climb(
    measure: Callable[[Size], Cost], full: Size, patience_s: float, memory_bytes: int
) -> list[Cost]:
    """The costs of growing sizes up to `full`, or to where time or memory would not suffice."""
    until = time.monotonic() + patience_s
    costs: list[Cost] = []
    for size in _sizes(full):
        if costs:
            next_one = expected(costs, size.pixels)
            too_slow = time.monotonic() + (1 + _RUNS) * next_one.seconds > until
            if too_slow or next_one.peak_bytes > memory_bytes:
                break
        costs.append(measure(size))
    return costs


def expected(costs: list[Cost], pixels: int) -> Cost:
    """The cost of so many pixels, on the straight line through the last two of `costs`."""
    last = costs[-1]
    if pixels == last.pixels:
        return last
    if len(costs) == 1:
        return Cost(pixels, last.seconds * pixels / last.pixels, last.peak_bytes)
    before = costs[-2]
    share = (pixels - last.pixels) / (last.pixels - before.pixels)
    seconds = last.seconds + max(0.0, last.seconds - before.seconds) * share
    peak = last.peak_bytes + max(0, last.peak_bytes - before.peak_bytes) * share
    return Cost(pixels, max(seconds, 0.0), round(peak))


def largest_fitting(costs: list[Cost], full: Size, memory_bytes: int) -> int:
    """The images of `full`, halved until they are expected to fit; 1 is the least."""
    images = full.images
    while images > 1:
        if expected(costs, Size(full.side_px, images).pixels).peak_bytes <= memory_bytes:
            break
        images = _halved(images)
    return images


def _sizes(full: Size) -> list[Size]:
    """From small to `full`, first in the crop's side and then in images."""
    images = min(2, full.images)  # batch norm refuses one image that shrinks to one pixel
    sides = [full.side_px]
    while sides[0] > 2 * SIDE_PX:
        sides.insert(0, sides[0] // 2)
    sizes = [Size(side, images) for side in sides]
    while images < full.images:
        images = min(full.images, images * _GROWTH)
        sizes.append(Size(full.side_px, images))
    return sizes


def _halved_until_it_fits(measure: Callable[[Size], Cost], full: Size) -> tuple[Cost, int]:
    images = full.images
    while True:
        try:
            return measure(Size(full.side_px, images)), images
        except Exception as error:
            if images == 1 or not is_out_of_memory(error):
                raise
        torch.cuda.empty_cache()
        images = _halved(images)


def _halved(images: int) -> int:
    """The largest divisor of `images` that is at most half of it."""
    return next(part for part in range(images // 2, 0, -1) if images % part == 0)


class _Bench:
    """A configuration under measurement."""

    def __init__(self, config: TrainConfig, data: Dataset, device: torch.device) -> None:
        # A rate at which nothing moves costs as much and never leads to a loss that is not finite.
        optimizer = config.optimizer.model_copy(update={"lr": 1e-9})
        config = config.model_copy(update={"optimizer": optimizer})
        self.config, self.data, self.device = config, data, device
        self.state = TrainState(config, data, device)
        self.loss = loss_for(config.loss, data)
        self.normalization = input_normalization(config.encoder, data.channels)
        self.limits = Limits.of(self.state.evaluated_model, data.num_classes)
        self.fullest = self.limits.fullest(data["val"])
        self.at_rest_bytes: int = psutil.Process().memory_info().rss

    def bytes_at_rest(self) -> int:
        """Bytes of a model between its steps: weights, gradients, moments, averaged weights."""
        weights = sum(w.numel() * w.element_size() for w in self.state.network.parameters())
        optimizer = self.config.optimizer
        moments = 2 if optimizer.kind == "adamw" else int(optimizer.momentum > 0)
        return weights * (2 + moments + (self.state.ema is not None))

    def train(self, size: Size) -> Cost:
        """Time steps on `size`, each with the optimiser's part."""
        augment = self.config.augment.model_copy(update={"crop_px": size.side_px})
        changes = {"augment": augment, "batch_size": size.images, "accumulation": 1}
        config = self.config.model_copy(update=changes)
        with miniature(self.data, size.images, 1) as few, _Memory() as memory:
            batches = TrainBatches(few["train"], config)

            def step() -> None:
                train_epoch(config, few, self.state, batches, self.loss, self.normalization)

            seconds = _seconds(step)
        return Cost(size.pixels, seconds, memory.peak_bytes)

    def validate(self, longest_px: int | None) -> float:
        """Seconds an image of validation; images are thinned to `longest_px` if they are longer."""
        split = self.data["val"]
        images = min(self.config.micro_batch_size, len(split))
        with miniature(self.data, 1, images, longest_px) as few:
            pixels = self._computed_pixels(few["val"])
            model = self.state.evaluated_model
            seconds = _seconds(lambda: evaluate(self.config, few, few["val"], model, self.loss))
        grown = max(1.0, self._computed_pixels(split) / pixels)
        return seconds / images * grown + self._scaling_s(split)

    def _scaling_s(self, split: Samples) -> float:
        """Seconds to scale one image's logits back to its own size, and to count them."""
        small, large = split.shapes[0], original_shapes(split)[0]
        if small == large:
            return 0.0
        classes = self.data.num_classes
        logits = torch.zeros(classes, *small, device=self.device)
        metrics = SegmentationMetrics(classes)

        def scale() -> None:
            labels = upsampled_labels(logits, large)[None]
            metrics.update(labels, labels)
            metrics.compute()

        return _seconds(scale)

    def validate_fullest(self) -> None:
        """Validate the batch of images that takes the most memory, at its own size."""
        images = ChosenSamples(self.data["val"], self.fullest[0])
        evaluate(self.config, self.data, images, self.state.evaluated_model, self.loss)

    def _computed_pixels(self, split: Samples) -> float:
        """Pixels that validation computes for an image, in the mean."""
        return statistics.mean(map(self.limits.computed_pixels, split.shapes))


class _Memory:
    """The peak of this process's memory over a block, looked at every few milliseconds."""

    def __enter__(self) -> Self:
        self._process, self._done = psutil.Process(), threading.Event()
        self.peak_bytes = self._process.memory_info().rss
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watch.join()

    def _look(self) -> None:
        while not self._done.wait(0.005):
            self.peak_bytes = max(self.peak_bytes, self._process.memory_info().rss)


def _seconds(run: Callable[[], object]) -> float:
    """Seconds of one `run`, once warm. Each run ends with reading a number off the device."""
    run()
    started = time.perf_counter()
    for _ in range(_RUNS):
        run()
    return (time.perf_counter() - started) / _RUNS
