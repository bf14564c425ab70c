"""A sweep for a part of the time, then the final training for the rest: only commands are used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.jobs.job import RECIPE, Clock, Job, Outcome
from sweeps.promotion.candidates import Candidate, full_budget_trials, source_sweep
from sweeps.promotion.registry import champion
from sweeps.tracking.store import TrackingStore, open_store
from unetexp.compute.device import pick_device

ROOT = Path(__file__).resolve().parents[2]
NAME = "whole-job"
_SWEEP_SHARE = 0.5  # of the time; the preflight before it and the promotion after it count, too
_SAFETY = 0.85  # of what is left after the sweep: Ray starts again, and the test split is judged
_MANY = 200  # trials, for which the disk must have room: the time ends the sweep


def sweep_and_final(job: Job, clock: Clock) -> Outcome:
    """`sweeps/run.py`, then `sweeps/promote.py --train-final` with as many epochs as fit."""
    uri = f"sqlite:///{job.folder}/mlflow.db"
    place = ["--tracking-uri", uri, "--storage", f"{job.folder}/runs"]
    settings = [part for path, value in job.changes().items() for part in _option(path, value)]
    spent = ["--trials", str(_MANY), "--time-budget", f"{_SWEEP_SHARE * clock.left:.0f}s"]
    _command("run", RECIPE, "--data", job.set, "--name", NAME, *spent, *settings, *place)
    store = open_store(uri)
    best = full_budget_trials(store, source_sweep(store, store.sweep_run(NAME)))
    # on the CPU a sweep trains two at once; a GPU has one trial at a time
    seeds = 1 if pick_device().type == "cuda" else 2
    epochs = max(1, int(_SAFETY * clock.left / _epoch_s(best[0])))
    merged = ["--ensemble", "--soup"] if seeds > 1 else []
    finals = ["--train-final", "--epochs", str(epochs), "--seeds", str(seeds), *merged]
    _command("promote", NAME, *finals, *place)
    return _outcome(store, len(best), best[0], epochs)


def _option(path: str, value: object) -> list[str]:
    return ["--seed", str(value)] if path == "seed" else ["--set", f"{path}={value}"]


def _epoch_s(trial: Candidate) -> float:
    """Seconds of an epoch beside as many others as there are seeds."""
    metrics = trial.run.data.metrics
    return metrics["time/train_s"] + metrics["time/val_s"]


def _outcome(store: TrackingStore, trials: int, best: Candidate, epochs: int) -> Outcome:
    found = champion(store)
    assert found is not None, "nothing was promoted before"
    final = store.sweep_run(f"{NAME}-final").data
    how = (
        f"{trials} whole trials, the best {best.score:.3f}; then {epochs} epochs; "
        f"promoted: {found.tags['promotion.model']}"
    )
    val = max(best.score, final.metrics.get(best.goals.best, best.score))
    return Outcome(float(found.tags["test/miou"]), val, how)


def _command(script: str, *arguments: str) -> None:
    """Run one of the scripts; RuntimeError with its output unless it ends well."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "sweeps" / f"{script}.py"), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{script}.py ended with {done.returncode}:\n{done.stdout}{done.stderr}")
