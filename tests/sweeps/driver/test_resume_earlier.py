"""A sweep that an earlier version started is resumed by this one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweeps.driver.plan import SweepOptions
from sweeps.driver.resume import plan_resume
from sweeps.search.controller import SweepController
from sweeps.state.ledger import FILE, Ledger
from sweeps.tracking.tracker import open_tracking
from tests.support.sweep_command import Place, run_here
from unetexp.component import flatten
from unetexp.data import Folder, open_dataset

KEPT = Path(__file__).with_name("earlier_version")  # as that version wrote it, one trial of three
NAME = "before"


@pytest.fixture
def place(tmp_path):
    """The folder as the earlier version left it: its files, and its runs in MLflow."""
    place = Place(tmp_path)
    folder = place.storage / NAME
    folder.mkdir(parents=True)
    (folder / "ledger.jsonl").write_bytes((KEPT / "ledger.jsonl").read_bytes())
    manifest = json.loads((KEPT / "sweep.json").read_text().replace("{PLACE}", str(tmp_path)))
    data = open_dataset(Folder(root=str(place.data)))
    manifest |= {"data_fingerprint": data.fingerprint, "data": data.summary()}
    (folder / "sweep.json").write_text(json.dumps(manifest))
    write_runs(place, folder, flatten(manifest["recipe"]["base"]))
    return place


def write_runs(place, folder, params):
    """What the ledger says, in MLflow."""
    tracker = open_tracking(place.uri)
    tracker.start_sweep(NAME, storage=str(folder))
    for event in Ledger(folder / "ledger.jsonl", write=False).events:
        match event["event"]:
            case "trial":
                tracker.start_trial(event["trial"], event["trial"], params | event["values"])
            case "epoch":
                metrics = {name: value for name, value in event["metrics"].items() if "/" in name}
                tracker.log_epoch(event["trial"], event["epoch"], metrics, event["at"])
            case "end":
                tracker.end_trial(event["trial"], event["reason"])
    tracker.end_sweep("interrupted")


def test_what_it_left_is_read_and_its_interrupted_trial_comes_next(place):
    plan, _ = plan_resume(NAME, SweepOptions(tracking_uri=place.uri))
    sweep = SweepController(plan.recipe, plan.seed, Ledger(plan.control / FILE), [])
    assert sweep.trials["0000"].stop_reason == "completed"
    assert sweep.propose().id == "0001"
    assert sweep.trials["0001"].epoch == 2
    assert sweep.propose().id == "0002"
    assert sweep.propose() is None


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_its_finished_trial_counts_and_the_others_are_trained(place):
    before = (place.storage / NAME / "ledger.jsonl").read_text()
    _, earlier = place.runs(NAME)

    said = run_here("--resume", NAME, *place.flags[2:])

    assert "1 of 2 trials are finished" in said
    assert (place.storage / NAME / "ledger.jsonl").read_text().startswith(before)
    (parent,), trials = place.runs(NAME)
    assert [trial.data.tags["stop_reason"] for trial in trials] == ["completed"] * 3
    assert {run.info.status for run in (parent, *trials)} == {"FINISHED"}
    assert [run.info.run_id for run in trials[:2]] == [run.info.run_id for run in earlier]
    assert trials[0].data.metrics == earlier[0].data.metrics
