"""What has been written of one trial to its MLflow run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from sweeps.runs import RunWriter
from sweeps.store import BEST, BEST_EPOCH, OBJECTIVE
from sweeps.words import count, paragraphs, reason_words


@dataclass
class TrialRun:
    """One trial's run, its best so far and its description."""

    run: RunWriter
    note: str
    running: bool = True
    last_epoch: int = 0
    best: float = -math.inf
    best_epoch: int = 0
    seen_ms: dict[int, int] = field(default_factory=dict)  # when an epoch was first handed in

    def take_in(self, epoch: int, score: float) -> None:
        if math.isfinite(score) and score > self.best:
            self.best, self.best_epoch = score, epoch

    def best_figures(self) -> dict[str, float]:
        return {BEST: self.best, BEST_EPOCH: self.best_epoch} if self.best_epoch else {}

    def outcome(self, stop_reason: str) -> str:
        """The description, with how the trial ended."""
        words = reason_words(stop_reason)
        explained = "" if words == stop_reason else f" ({words})"
        text = f"Ended as {stop_reason}{explained} after {count(self.last_epoch, 'epoch')}."
        if self.best_epoch:
            text += f" Best {OBJECTIVE} {self.best:.4f} in epoch {self.best_epoch}."
        return paragraphs(self.note, text)
