"""One sweep on recorded curves, with a virtual clock: the conductor is that of real sweeps."""

from __future__ import annotations

import heapq
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.searching.landscape import CLOSE, SCORE, Landscape
from sweeps.search.controller import SweepController
from sweeps.search.trial import Trial
from sweeps.state.ledger import Event, Ledger
from sweeps.state.stop_reason import StopReason


class MemoryLedger(Ledger):
    """A ledger without a file; its times are those of the virtual clock."""

    def __init__(self) -> None:
        super().__init__(Path(os.devnull), write=False)
        self.now_s = 0.0

    def append(self, event: str, **fields: Any) -> Event:
        record: Event = {"event": event, "at": self.now_s, **fields}
        self.events.append(record)
        return record


@dataclass(frozen=True)
class Replayed:
    """What a replay found: at which device seconds the best trial so far changed, and to what."""

    steps: list[tuple[float, float]]  # (device s, regret): of the true curve of the leading trial
    trials: int
    epochs: int
    full: int  # trials that had all epochs
    best: float = -np.inf  # the leading score

    @property
    def reached_s(self) -> float | None:
        """Device seconds until the leading trial was within CLOSE of the best; None: never."""
        return next((at for at, regret in self.steps if regret <= CLOSE), None)

    def regret_at(self, device_s: float, before: float) -> float:
        """The regret at a time; `before` stands for it until the first epoch has ended."""
        known = [regret for at, regret in self.steps if at <= device_s]
        return known[-1] if known else before


class _Devices:
    """The running trials: an event for the end of each one's current epoch."""

    def __init__(self, count: int) -> None:
        self.free = count
        self._events: list[tuple[float, int, Trial]] = []
        self._number = 0  # so that equal times come in the order in which they were planned

    def plan(self, at: float, trial: Trial) -> None:
        heapq.heappush(self._events, (at, self._number, trial))
        self._number += 1

    def next(self, until: float) -> tuple[float, Trial] | None:
        """The next epoch's end; None when there is none before `until`."""
        if not self._events or self._events[0][0] > until:
            return None
        at, _, trial = heapq.heappop(self._events)
        return at, trial


def replay(
    controller: SweepController,
    landscape: Landscape,
    devices: int,
    device_s: float,
    seed: int,
    before: Replayed | None = None,
) -> Replayed:
    """Let the controller run its sweep until `device_s` seconds are spent on all devices together.

    A trial has its device for the recorded seconds of its epochs. The controller's ledger is a
    MemoryLedger. `before` is what an earlier controller has found, when the ledger's clock stood
    where it stands now.
    """
    ledger = controller.ledger
    assert isinstance(ledger, MemoryLedger)
    curves: dict[str, np.ndarray] = {}
    rows: dict[str, int] = {}
    running, best, steps, epochs = _Devices(devices), -np.inf, [], 0
    if before is not None:
        best, steps, epochs = before.best, [*before.steps], before.epochs
    while True:
        while running.free and (trial := controller.propose()) is not None:
            if trial.id not in rows:
                rng = np.random.default_rng((seed, int(trial.id)))
                rows[trial.id] = landscape.row(trial.values)
                curves[trial.id] = landscape.run(trial.values, rng)
            controller.trial_started(trial.id)
            running.free -= 1
            running.plan(ledger.now_s + landscape.seconds[rows[trial.id], trial.epoch], trial)
        event = running.next(device_s / devices)
        if event is None:
            break
        ledger.now_s, trial = event
        row, epoch, epochs = rows[trial.id], trial.epoch + 1, epochs + 1
        score = float(curves[trial.id][epoch - 1])
        continues = controller.epoch_finished(trial.id, {"epoch": epoch, SCORE: score})
        if score > best:
            best = score
            true = float(landscape.scores[row, :epoch].max())
            steps.append((ledger.now_s * devices, landscape.best - true))
        if continues:
            running.plan(ledger.now_s + landscape.seconds[row, epoch], trial)
        else:
            controller.trial_ended(trial.id, StopReason.COMPLETED)
            running.free += 1
    full = controller.progress.count(StopReason.COMPLETED)
    return Replayed(steps, len(controller.trials), epochs, full, best)
