"""The order of training images: which sample is at which place of an epoch.

A function of seed and epoch alone, so that an epoch that was interrupted is the same again, and
that every rank knows the whole order and takes its own share of each micro-batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unetexp.compute.distributed import Ranks
from unetexp.data import Split
from unetexp.training.config import TrainConfig
from unetexp.training.sampling import RareClasses

_STREAM = 3  # of random numbers, apart from those of the samples' views


class SampleKey(NamedTuple):
    """A sample at its place in training: the `again`-th time in the epoch, from 0."""

    epoch: int
    sample: int
    again: int


class Order:
    """A sampler of this rank's share of each micro-batch of an epoch.

    `accumulation` micro-batches make up one step's batch.
    """

    def __init__(self, split: Split, config: TrainConfig, ranks: Ranks) -> None:
        self.count, self.seed, self.epoch, self.ranks = len(split), config.seed, 0, ranks
        self.steps = config.steps_per_epoch(self.count)
        self.shape = (self.steps * config.accumulation, config.micro_batch_size)
        self.repeats: NDArray[np.float64] | None = None  # of each sample in a pass; None: 1
        if isinstance(config.sampler, RareClasses):
            self.repeats = config.sampler.repeats(split.class_places.counts)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[list[SampleKey]]:
        order = [
            SampleKey(self.epoch, int(index), int(again))
            for index, again in zip(*self._samples(), strict=True)
        ]
        for start in range(0, len(order), self.shape[1]):
            share = self.shape[1] // self.ranks.world
            begin = start + share * self.ranks.rank
            yield order[begin : begin + share]

    def _samples(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The samples of an epoch, and how often each has come in it before.

        What of a pass does not fill a batch is left out of the epoch.
        """
        places = self.shape[0] * self.shape[1]
        passes: list[NDArray[np.int64]] = []
        drawn = 0
        while drawn < places:
            passes.append(self._pass(len(passes)))
            drawn += len(passes[-1])
        samples = np.concatenate(passes)[:places]
        by_sample = np.argsort(samples, kind="stable")
        firsts = np.searchsorted(samples[by_sample], samples[by_sample])
        again = np.empty(places, np.int64)
        again[by_sample] = np.arange(places) - firsts
        return samples, again

    def _pass(self, number: int) -> NDArray[np.int64]:
        """Every sample once, or as often as its repeat factor says, the fraction by chance."""
        seed = (self.seed, self.epoch, number) if number else (self.seed, self.epoch)
        if self.repeats is None:
            return np.random.default_rng(seed).permutation(self.count)
        rng = np.random.default_rng((self.seed, self.epoch, number, 0, _STREAM))
        times = np.floor(self.repeats + rng.random(self.count)).astype(np.int64)
        return rng.permutation(np.repeat(np.arange(self.count), times))
