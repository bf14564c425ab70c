"""A trial as the search sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna

from sweeps.state.progress import TrialProgress
from sweeps.state.stop_reason import StopReason
from unetexp.training.config import TrainConfig


@dataclass
class Trial:
    """A trial as the search sees it."""

    progress: TrialProgress
    optuna_trial: optuna.Trial
    point: Mapping[str, Any] | None = None  # its values in the space as it is now; None: outside
    config: TrainConfig | None = None  # decoded when it is proposed
    decision: StopReason | None = None  # why it has to stop, set before it has ended
    ended: bool = False  # for good, or in this driver
    error: str = ""

    @property
    def id(self) -> str:
        return self.progress.id

    @property
    def values(self) -> Mapping[str, Any]:
        """Dotted path -> searched value."""
        return self.progress.values

    @property
    def epoch(self) -> int:
        """The last epoch that is recorded."""
        return self.progress.epoch

    @property
    def stop_reason(self) -> StopReason | None:
        return self.progress.reason if self.ended else None
