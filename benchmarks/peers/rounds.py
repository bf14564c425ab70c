"""Timing side by side: the arms take turns, round by round, so that a busy minute hits all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Arm = Callable[[], float]  # one round of one arm; returns seconds per step
Times = dict[str, list[float]]


@dataclass(frozen=True)
class Spread:
    """Median and quartiles over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        if len(values) < 2:
            return cls(*values * 3)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Ratio:
    """How many times faster one arm is than another, with the target if there is one."""

    what: str
    spread: Spread
    target: float | None = None


def interleaved(arms: Mapping[str, Arm], rounds: int) -> Times:
    """Seconds per step of each arm in each round, after one round to warm up."""
    for arm in arms.values():
        arm()
    times: Times = {name: [] for name in arms}
    for number in range(rounds):
        # Every second round runs backwards: no arm always follows the same other one.
        for name in list(arms)[:: -1 if number % 2 else 1]:
            times[name].append(arms[name]())
    return times


def ratio(times: Times, slow: str, fast: str, target: float | None = None) -> Ratio:
    """`slow` / `fast`, paired by round."""
    values = [a / b for a, b in zip(times[slow], times[fast], strict=True)]
    return Ratio(f"{slow} / {fast}", Spread.of(values), target)


def timed(step: Callable[[], None], steps: int, device: torch.device) -> Arm:
    """An arm of `steps` calls a round."""

    def a_round() -> float:
        synchronize(device)
        started = time.perf_counter()
        for _ in range(steps):
            step()
        synchronize(device)
        return (time.perf_counter() - started) / steps

    return a_round


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
