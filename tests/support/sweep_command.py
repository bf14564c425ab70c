"""`python sweeps/run.py` in its own process or in this one, and a folder for a test's sweeps."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from mlflow import MlflowClient
from typer.testing import CliRunner

from sweeps.cli.run import app
from tests.support.data_folders import write_folder_dataset

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, str(ROOT / "sweeps" / "run.py")]
RECIPE = """
base:
  encoder: {name: resnet18, weights: none}
  augment: {crop_px: 32}
  batch_size: 2
  epochs: 3
space:
  encoder.freeze: {kind: choice, values: [none, stem]}
  decoder.upsampling: {kind: choice, values: [bilinear, nearest]}
  loss.kind: {kind: choice, values: [cross_entropy, focal]}
  loss.gamma: {kind: uniform, low: 1, high: 3, when: {loss.kind: focal}}
  optimizer.lr: {kind: loguniform, low: 1.0e-3, high: 1.0e-2}
budget: {trials: 5}
asha: {grace_epochs: 1}
"""
# One after the other, none stopped: what the same sweep does twice.
FEW = [
    *("--gpus", 0, "--max-concurrent", 1, "--cpus-per-trial", 1, "--trials", 3, "--epochs", 4),
    *("--set", "asha.enabled=false", "--set", "batch_size=4", "--skip-preflight"),
]


def run(*arguments, timeout=240):
    """Run the command in its own process, to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def start(*arguments):
    """Start the command in the background, in its own process group."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(process, text, timeout_s=300):
    """The process's output up to the line that has `text`."""
    lines, deadline = [], time.monotonic() + timeout_s
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
        assert time.monotonic() < deadline, "".join(lines)
    raise AssertionError("ended before: " + "".join(lines))


def run_here(*arguments, code=0):
    """The output of the command, run in this process to save its imports.

    Fails unless the exit code is `code`.
    """
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def refusal(*arguments):
    """What the command says of a mistake."""
    return run_here(*arguments, code=2)


class Place:
    """The folder, data and tracking store of a test's sweeps."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = f"sqlite:///{root / 'mlflow.db'}"
        self.storage = root / "runs"
        self.recipe = root / "small.yaml"
        self.recipe.write_text(RECIPE)
        self.data = root / "data"
        splits = {"train": 4, "val": 3, "test": 2}
        write_folder_dataset(self.data, splits=splits, size=(40, 48), classes=3)

    @property
    def flags(self):
        return ["--data", self.data, "--tracking-uri", self.uri, "--storage", self.storage]

    @property
    def client(self):
        return MlflowClient(tracking_uri=self.uri)

    def runs(self, name):
        """The parent runs and the child runs of a sweep, the latter in order of the trials."""
        experiment = self.client.get_experiment_by_name("unetexp").experiment_id
        found = self.client.search_runs([experiment], f"tags.`sweep.name` = '{name}'")
        parents = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
        children = [run for run in found if "mlflow.parentRunId" in run.data.tags]
        return parents, sorted(children, key=lambda run: run.data.tags["tune.trial_id"])


def results(place, name):
    """The results of a sweep's trials without times: parameters, curves, stop reasons."""
    found = []
    _, children = place.runs(name)
    for child in children:
        curves = {}
        for metric in child.data.metrics:
            if not metric.startswith(("time/", "system/", "cost/")):
                points = place.client.get_metric_history(child.info.run_id, metric)
                curves[metric] = [(point.step, point.value) for point in points]
        found.append((child.data.params, curves, child.data.tags["stop_reason"]))
    return found
