"""The estimate held against the outcome, also over several drivers and for older records."""

from __future__ import annotations

import json

import pytest

from sweeps.driver.estimate_outcome import EstimateOutcome, estimate_outcome
from sweeps.state.manifest import SweepManifest, read_manifest

RECORD = {
    "name": "small",
    "recipe_asked": "quickstart",
    "changes": {},
    "data_asked": None,
    "gpus": 0,
    "simulate_gpus": None,
    "recipe": {},
    "weights": "none",
    "data_fingerprint": "f00d",
    "data": {},
    "storage": "/runs/small",
}


def events(*times):
    return [{"event": "epoch", "at": at} for at in times]


def test_one_driver():
    manifest = SweepManifest(**RECORD, estimated_s=180.0, driver_starts=[1000.0])
    found = estimate_outcome(manifest, events(1010.0, 1190.0), 1200.0)
    assert found == EstimateOutcome(180.0, 200.0)
    assert found.describe() == "estimated 3 min, took 3 min 20 s"
    assert found.tags() == {"sweep.estimated_s": 180.0, "sweep.took_s": 200.0}


def test_the_pauses_of_a_resumed_sweep_do_not_count():
    starts = [1000.0, 5000.0, 9000.0]
    manifest = SweepManifest(**RECORD, estimated_s=60.0, driver_starts=starts)
    # The second driver died before it wrote anything.
    found = estimate_outcome(manifest, events(1010.0, 1030.0, 9005.0), 9040.0)
    assert found.took_s == pytest.approx(30 + 0 + 40)


def test_a_record_of_older_code_has_no_estimate(tmp_path):
    (tmp_path / "sweep.json").write_text(json.dumps(RECORD))
    manifest = read_manifest(tmp_path)
    assert estimate_outcome(manifest, events(1.0), 2.0) is None
    manifest.driver_starts.append(5.0)
    manifest.write(tmp_path)
    assert read_manifest(tmp_path) == manifest
