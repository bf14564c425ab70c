"""Runs a sweep's controller to its end with one simulated worker, without Ray."""

from __future__ import annotations

import math

from sweeps.search.controller import SweepController


def score_of(values: dict, epoch: int) -> float:
    """A simulated learning curve that depends on the searched values."""
    quality = 0.5 + 0.1 * (values.get("loss.kind") == "focal")
    quality -= 0.05 * abs(math.log10(values.get("optimizer.lr", 1e-3)) + 3)
    return quality * (1 - 0.5**epoch)


def play(controller: SweepController) -> None:
    """Run the whole sweep with one simulated worker."""
    while (trial := controller.propose()) is not None:
        for epoch in range(1, controller.epochs + 1):
            metrics = {"epoch": epoch, "val/miou": score_of(trial.values, epoch)}
            if not controller.epoch_finished(trial.id, metrics):
                controller.trial_ended(trial.id, "completed")
                break
