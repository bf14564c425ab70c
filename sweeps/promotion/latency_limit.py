"""The best trial that is fast enough on this machine."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from sweeps.promotion.candidates import Candidate
from unetexp.data import Dataset
from unetexp.errors import GateError
from unetexp.metrics.latency import latency_ms
from unetexp.models.saved_model import load, read_spec
from unetexp.runtimes.flavors import PYTORCH

_FASTER = "serve an export (--export openvino-int8 --flavor openvino-int8), "


def fast_enough(
    trials: Sequence[Candidate],
    timed_ms: Callable[[Candidate], float],
    limit_ms: float,
    *,
    flavor: str = PYTORCH,
    force: bool,
) -> tuple[list[Candidate], dict[str, float]]:
    """The `trials`, best first, with the first that takes at most `limit_ms` before all others.

    Also the milliseconds of those that were `timed_ms`, by run id, for one image as it is served
    here, with `flavor`.
    Raises GateError, naming the fastest, where none holds the limit; `force` leaves the order then.
    """
    measured: dict[str, float] = {}
    for trial in trials:
        measured[trial.run_id] = timed_ms(trial)
        if measured[trial.run_id] <= limit_ms:
            return [trial, *(other for other in trials if other is not trial)], measured
    if force:
        return list(trials), measured
    fastest = min(trials, key=lambda trial: measured[trial.run_id])
    raise GateError(
        f"--max-latency-ms {limit_ms:g}: none of the {len(trials)} trials that had the full budget "
        f"and kept their weights is so fast on this machine in {flavor}. The fastest, trial "
        f"{fastest.trial}, takes {measured[fastest.run_id]:.1f} ms, with {fastest.goals.score} "
        f"{fastest.score:.4f}. Allow more, {_FASTER if flavor == PYTORCH else ''}or search smaller "
        "models with latency_ms as an objective. Nothing was changed; --force promotes the best "
        "one anyway."
    )


def weights_ms(folder: Path, data: Dataset, device: torch.device) -> float:
    """Milliseconds for one image of the model in `folder`, in PyTorch as it is served here."""
    height, width = statistics.mode(data["val"].shapes)  # as in training
    return latency_ms(load(folder).to(device), read_spec(folder).in_channels, height, width)
