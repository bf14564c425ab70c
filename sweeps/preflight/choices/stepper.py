"""Training steps of one configuration, timed under changing settings."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from typing import Self

import torch

from sweeps.preflight.smoke_test import miniature
from sweeps.preflight.step_cost import Size
from unetexp.compute.compiled import TrainForward, compile_cache
from unetexp.compute.settings import ComputeSettings
from unetexp.data import Dataset
from unetexp.data.cache_folder import cache_folder
from unetexp.models.weights.resolution import input_normalization
from unetexp.training.batches.train_batches import TrainBatches
from unetexp.training.config import TrainConfig
from unetexp.training.loop import train_epoch
from unetexp.training.losses import loss_for
from unetexp.training.state import TrainState

_LEAST_S = 0.2  # a shorter step is repeated until they took so long together
_MOST = 10
_ON_A_GPU = 4  # steps in a row, so that loading the next batch overlaps as in training


class Stepper:
    """The training of `config` on `device`, step by step.

    One model serves all settings: two of them may not fit into memory.
    """

    def __init__(
        self, config: TrainConfig, data: Dataset, device: torch.device, workers: int = 0
    ) -> None:
        # A rate at which nothing moves costs as much and never leads to a loss that is not finite.
        optimizer = config.optimizer.model_copy(update={"lr": 1e-9})
        self._config = config.model_copy(update={"optimizer": optimizer})
        self._data, self._workers = data, workers
        self._state = TrainState(self._config, data, device)
        self._loss = loss_for(config.loss, data)
        self._normalization = input_normalization(config.encoder, data.channels)
        self._steps = _ON_A_GPU if device.type == "cuda" else 1
        self._batches: dict[Size, tuple[TrainConfig, Dataset, TrainBatches]] = {}
        self._tuned: set[tuple[ComputeSettings, Size]] = set()
        self._forwards = {self._state.compute: self._state.forward}
        self._files = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def seconds(self, settings: ComputeSettings, size: Size) -> float:
        """Seconds of a training step on `size`, the optimiser's part with it.

        Raises RuntimeError where the network cannot be compiled as `settings` ask.
        """
        self._compute_with(settings)
        if self._state.device.type == "cuda" and (settings, size) not in self._tuned:
            torch.backends.cudnn.benchmark = True  # as in training: a first step tries algorithms
            self._train(size)
            self._tuned.add((settings, size))
        taken: list[float] = []
        while not taken or (sum(taken) < _LEAST_S and len(taken) < _MOST):
            started = time.perf_counter()
            self._train(size)
            taken.append(time.perf_counter() - started)
        if failure := self._state.forward.failure:  # those were steps without compiling
            raise RuntimeError(failure)
        return statistics.median(taken) / self._steps

    def _train(self, size: Size) -> None:
        config, few, batches = self._of(size)
        train_epoch(config, few, self._state, batches, self._loss, self._normalization)

    def _of(self, size: Size) -> tuple[TrainConfig, Dataset, TrainBatches]:
        if size not in self._batches:
            augment = self._config.augment.model_copy(update={"crop_px": size.side_px})
            changes = {"augment": augment, "batch_size": size.images, "accumulation": 1}
            config = self._config.model_copy(update=changes)
            few = self._files.enter_context(miniature(self._data, self._steps * size.images, 1))
            device = self._state.device
            batches = TrainBatches(few["train"], config, workers=self._workers, device=device)
            self._batches[size] = config, few, batches
        return self._batches[size]

    def _compute_with(self, settings: ComputeSettings) -> None:
        state = self._state
        if settings == state.compute:
            return
        state.compute, state.scaler = settings, settings.scaler(state.device)
        if settings not in self._forwards:
            cache = compile_cache(cache_folder())
            self._forwards[settings] = TrainForward(settings.compile, cache)
        state.forward = self._forwards[settings]  # what it has compiled is used again
        state.model.to(memory_format=settings.layout)
        if state.ema:
            state.ema.module.to(memory_format=settings.layout)
        for moments in state.optimizer.state.values():
            for name, value in moments.items():
                if isinstance(value, torch.Tensor) and value.ndim == 4:
                    moments[name] = value.contiguous(memory_format=settings.layout)
