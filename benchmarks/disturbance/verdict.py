"""The differences between a disturbed sweep and the same sweep undisturbed."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
from mlflow import MlflowClient
from mlflow.entities import Run

from sweeps.config.recipe import Recipe
from sweeps.search.controller import SweepController
from sweeps.state.ledger import FILE, Ledger
from sweeps.tracking.run_writer import legal_names
from unetexp.component import flatten
from unetexp.data import Dataset
from unetexp.inference.validation_figures import read_figures, tracked, write_figures
from unetexp.metrics.figures.settings import ValidationFigures
from unetexp.training.experiment import BEST, Experiment

NOT_COMPARED = ("time/", "system/", "cost/")  # wall times and memory
MODEL = "model.safetensors"

Points = Counter[tuple[str, int, float]]  # (metric, step, value) -> how often it is stored


@dataclass
class Facts:
    """The values of a trial that are compared."""

    params: dict[str, str]
    stop_reason: str | None
    weights: str | None  # digest of the best model's file


@dataclass
class Records:
    """The values of a sweep that are compared, by trial; without runs if MLflow was not used."""

    points: dict[str, Points] = field(default_factory=dict)
    facts: dict[str, Facts] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)  # the parent first


def read(client: MlflowClient, name: str, storage: Path) -> Records:
    """The records of the sweep called `name`, whose folder is `storage`."""
    experiment = client.get_experiment_by_name("unetexp").experiment_id
    runs = client.search_runs([experiment], f"tags.`sweep.name` = '{name}'", max_results=5000)
    runs.sort(key=lambda run: run.data.tags.get("tune.trial_id", ""))
    records = Records(runs=runs)
    for run in runs[1:]:
        trial, tags = run.data.tags["tune.trial_id"], run.data.tags
        points = records.points.setdefault(trial, Counter())
        for metric in filter(is_compared, run.data.metrics):
            history = client.get_metric_history(run.info.run_id, metric)
            points.update((metric, point.step, point.value) for point in history)
        weights = digest(storage / "trials" / trial / BEST / MODEL)
        records.facts[trial] = Facts(run.data.params, tags.get("stop_reason"), weights)
    return records


def train_alone(ledger: Ledger, recipe: Recipe, data: Dataset) -> Records:
    """The records of the ledger's trials when each config is trained alone, without a sweep."""
    records = Records()
    budgets = {event["trial"]: event["epoch"] for event in ledger.of("epoch")}
    reasons = {event["trial"]: event["reason"] for event in ledger.of("end")}
    for event in ledger.of("trial"):
        trial, config = event["trial"], recipe.config(event["values"])
        points: Points = Counter()
        best, best_epoch = -math.inf, 0
        with tempfile.TemporaryDirectory() as scratch:
            experiment = Experiment(config, data, Path(scratch), torch.device("cpu"))
            for report in experiment.run():
                epoch, metrics = report.epoch, dict(report.metrics)
                if epoch == 1:
                    metrics |= experiment.model_figures()
                if metrics["val/miou"] > best:
                    best, best_epoch = metrics["val/miou"], epoch
                metrics |= {"best/val/miou": best, "best/epoch": float(best_epoch)}
                points.update(
                    (name, epoch, value)
                    for name, value in legal_names(metrics).items()
                    if is_compared(name) and math.isfinite(value)
                )
                if epoch == budgets.get(trial):
                    break
            if epoch == config.epochs and recipe.figures is not None:
                points.update(_figures(experiment, recipe.figures))
            weights = digest(Path(scratch) / BEST / MODEL)
        params = {name: str(value) for name, value in flatten(config.tree()).items()}
        records.points[trial] = points
        records.facts[trial] = Facts(legal_names(params), reasons.get(trial), weights)
    return records


def _figures(experiment: Experiment, wanted: ValidationFigures) -> Points:
    """The figures of a trial that has run all its epochs."""
    state, folder = experiment.state, experiment.folder
    write_figures(folder, experiment.config, experiment.data, state.device, state.compute, wanted)
    figures = read_figures(folder)
    assert figures is not None
    return Counter(
        (name, figures["epoch"], value) for name, value in legal_names(tracked(figures)).items()
    )


def differences(disturbed: Records, undisturbed: Records, proposals: int, endings: int) -> dict:
    """The number of differences of each kind; all 0 if nothing went wrong."""
    trials = Counter(run.data.tags["tune.trial_id"] for run in disturbed.runs[1:])
    everyone = set(disturbed.points) | set(undisturbed.points)
    nothing: Points = Counter()
    other = double = 0
    for trial in everyone:
        points = disturbed.points.get(trial, nothing)
        expected = undisturbed.points.get(trial, nothing)
        other += len(set(points) ^ set(expected))
        double += points.total() - len({(metric, step) for metric, step, _ in points})
    return {
        "trials lost or added": len(set(trials) ^ set(undisturbed.points)),
        "trials with more than one run": sum(count > 1 for count in trials.values()),
        "points lost, added or different": other,
        "points double": double,
        "runs left RUNNING": sum(run.info.status == "RUNNING" for run in disturbed.runs),
        "trials proposed otherwise than in a replay": proposals,
        "trials ended otherwise than in a replay": endings,
        "trials with other settings, ending or weights": sum(
            disturbed.facts.get(trial) != undisturbed.facts.get(trial) for trial in everyone
        ),
    }


def replay(ledger: Ledger, recipe: Recipe) -> tuple[int, int]:
    """Replay the recorded scores, in their order, with a controller that is never interrupted.

    Returns how many trials it proposes differently, and how many it ends differently from their
    last `end` event in the ledger.
    """
    with tempfile.TemporaryDirectory() as scratch:
        controller = SweepController(recipe, recipe.base.seed, Ledger(Path(scratch) / FILE), [])
        proposals = 0
        for event in ledger.events:
            if event["event"] == "trial":
                proposal = controller.propose()
                proposals += proposal is None or proposal.values != event["values"]
            elif event["event"] == "epoch":
                controller.epoch_finished(event["trial"], event["metrics"])
            elif event["event"] == "end" and event["reason"] != "interrupted":
                controller.trial_ended(event["trial"], event["reason"])
    ends = {event["trial"]: event["reason"] for event in ledger.of("end")}
    expected = {trial.id: trial.decision for trial in controller.trials.values()}
    return proposals, sum(ends.get(trial) != reason for trial, reason in expected.items())


def is_compared(metric: str) -> bool:
    return not metric.startswith(NOT_COMPARED)


def digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
