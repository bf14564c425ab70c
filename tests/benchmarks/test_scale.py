"""Many instant trials through the whole driver: nothing is lost, whatever the pace."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sweeps.state.ledger import FILE, Ledger

ROOT = Path(__file__).parents[2]
TRIALS, EPOCHS = 60, 3


@pytest.mark.slow
def test_every_instant_trial_is_on_record_with_all_its_points(tmp_path):
    command = [sys.executable, ROOT / "benchmarks/scale.py", "--arm", "ours", "--keep", tmp_path]
    sizes = ["--trials", TRIALS, "--gpus", 4, "--epochs", EPOCHS]
    done = subprocess.run([*map(str, command + sizes)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    ledger = Ledger(tmp_path / FILE, write=False)
    ends = {event["trial"]: event for event in ledger.of("end")}
    assert sorted(ends) == [f"{number:04d}" for number in range(TRIALS)]
    assert {event["reason"] for event in ends.values()} <= {"completed", "asha"}

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("unetexp").experiment_id
    runs = client.search_runs([experiment], "tags.`tune.trial_id` LIKE '%'", max_results=1000)
    assert Counter(run.data.tags["tune.trial_id"] for run in runs) == Counter(list(ends))
    recorded = {(e["trial"], e["epoch"]): e["metrics"]["val/miou"] for e in ledger.of("epoch")}
    stored = Counter()
    for run in runs:
        trial = run.data.tags["tune.trial_id"]
        assert run.info.status == "FINISHED"
        assert run.data.tags["stop_reason"] == ends[trial]["reason"]
        for point in client.get_metric_history(run.info.run_id, "val/miou"):
            assert point.value == recorded[trial, point.step]
            stored[trial, point.step] += 1
    assert stored == Counter(recorded.keys())
