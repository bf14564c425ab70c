"""What a trial reports to the sweep: typed messages, under one key of Ray's results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from sweeps.state.stop_reason import StopReason

REPORT = "report"  # the key; all others in a result of Ray Tune are Ray's own


@dataclass(frozen=True)
class EpochFinished:
    """An epoch has ended; `epoch` counts from 1, `metrics` have flat names such as `val/miou`."""

    epoch: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class TrialPlaced:
    """The trial has begun in a process that has the GPU named `gpu`."""

    gpu: str


@dataclass(frozen=True)
class TrialMessage:
    """A sentence for the user."""

    text: str


@dataclass(frozen=True)
class TrialFailed:
    """The trial has ended by an error that would occur again in another attempt.

    It is reported and not raised, because Ray Tune would run the trial once more.
    """

    reason: StopReason
    error: str


@dataclass(frozen=True)
class DiskFull:
    """No space was left for the trial's files: no trial of the sweep can continue."""

    error: str


TrialReport: TypeAlias = EpochFinished | TrialPlaced | TrialMessage | TrialFailed | DiskFull
