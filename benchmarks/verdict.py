"""What a disturbed sweep lost, against its undisturbed twin."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from sweeps.ledger import FILE, Ledger
from sweeps.recipe import Recipe
from sweeps.rungs import Rungs

NOT_COMPARED = ("time/", "system/")  # wall times and memory


@dataclass
class Records:
    """All that a sweep left: its MLflow runs and the files of its trials."""

    runs: list[Run]  # the parent first
    points: dict[str, Counter]  # trial -> (metric, step, value) -> how often it is stored
    settings: dict[str, tuple]  # trial -> parameters, stop reason, digest of the best weights
    ledger: Ledger


def read(client: MlflowClient, name: str, storage: Path) -> Records:
    """The records of the sweep called `name`, whose folder is `storage`."""
    experiment = client.get_experiment_by_name("unetexp").experiment_id
    runs = client.search_runs([experiment], f"tags.`sweep.name` = '{name}'", max_results=5000)
    runs.sort(key=lambda run: run.data.tags.get("tune.trial_id", ""))
    records = Records(runs, {}, {}, Ledger(storage / FILE, write=False))
    for run in runs[1:]:
        trial = run.data.tags["tune.trial_id"]
        points = records.points.setdefault(trial, Counter())
        for metric in run.data.metrics:
            if not metric.startswith(NOT_COMPARED):
                history = client.get_metric_history(run.info.run_id, metric)
                points.update((metric, point.step, point.value) for point in history)
        model = storage / "trials" / trial / "best" / "model.safetensors"
        digest = hashlib.sha256(model.read_bytes()).hexdigest() if model.exists() else None
        params = tuple(sorted(run.data.params.items()))
        records.settings[trial] = (params, run.data.tags.get("stop_reason"), digest)
    return records


def figures(disturbed: Records, twin: Records, recipe: Recipe) -> dict[str, int]:
    """What went wrong, counted; all of it is 0 where nothing did."""
    trials = Counter(run.data.tags["tune.trial_id"] for run in disturbed.runs[1:])
    lost = sum(
        (points - disturbed.points.get(t, Counter())).total() for t, points in twin.points.items()
    )
    steps = [
        Counter((m, s) for m, s, _ in points.elements()) for points in disturbed.points.values()
    ]
    double = sum(count - 1 for each in steps for count in each.values())
    return {
        "trials lost": len(set(twin.points) - set(trials)),
        "trials with more than one run": sum(count > 1 for count in trials.values()),
        "points lost or different": lost,
        "points double": double,
        "runs left RUNNING": sum(run.info.status == "RUNNING" for run in disturbed.runs),
        "decisions unlike a replay of the ledger": wrong_decisions(disturbed.ledger, recipe),
        "trials with other settings, ending or weights": sum(
            disturbed.settings.get(trial) != facts for trial, facts in twin.settings.items()
        ),
    }


def wrong_decisions(ledger: Ledger, recipe: Recipe) -> int:
    """Trials that did not end as the rungs, rebuilt from the recorded scores, would have it."""
    epochs = recipe.base.epochs
    rungs = Rungs(recipe.grace_epochs, epochs, recipe.asha.reduction_factor)
    expected: dict[str, str] = {}
    for event in ledger.of("epoch"):
        trial, epoch, score = event["trial"], event["epoch"], event["metrics"]["val/miou"]
        if trial in expected:
            expected[trial] = "told to stop before, and nothing recorded after that"
        elif epoch >= epochs:
            expected[trial] = "completed"
        elif not math.isfinite(score):
            expected[trial] = "nan"
        elif not rungs.admits(trial, epoch, score):
            expected[trial] = "asha"
    ends = {event["trial"]: event["reason"] for event in ledger.of("end")}  # the last one counts
    return sum(ends.get(trial) != reason for trial, reason in expected.items())
