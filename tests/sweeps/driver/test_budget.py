"""What a budget plans beside trials: the confirmation of the best, and time for it."""

from __future__ import annotations

import pytest

from sweeps.state.progress import SweepProgress
from tests.support.databases import new_database
from tests.support.sweep_command import Place, run_here
from tests.support.trials_here import trials_here

QUICK = [
    *("--gpus", 0, "--max-concurrent", 1, "--cpus-per-trial", 1, "--trials", 2, "--epochs", 1),
    *("--set", "asha.enabled=false", "--set", "batch_size=4", "--skip-preflight"),
    *("--set", "budget.confirm=1", "--set", "budget.confirm_seeds=2"),
]


@pytest.mark.slow
def test_a_sweep_confirms_its_best_at_its_end_and_once(tmp_path):
    place = Place(tmp_path)
    new_database(place.root / "mlflow.db")
    planned = run_here(place.recipe, *place.flags, *QUICK, "--dry-run")
    assert "then the best 1 with 2 new seeds each: 2 trainings of 1 epochs" in planned
    with trials_here():
        ran = run_here(place.recipe, *place.flags, *QUICK, "--name", "planned")
        assert "over 2 new seeds (sweep planned-confirm)" in ran
        (parent,), children = place.runs("planned")
        assert len(children) == 2
        assert "over 2 new seeds" in parent.data.tags["sweep.confirmed"]
        (_, again) = place.runs("planned-confirm")
        assert len(again) == 2
        resumed = run_here("--resume", "planned", "--tracking-uri", place.uri)
    assert "sweep planned-confirm has trained this already" in resumed
    assert "over 2 new seeds (sweep planned-confirm)" in resumed
    assert len(place.runs("planned-confirm")[1]) == 2


@pytest.mark.parametrize(
    ("confirming", "at_once", "reserved_s"), [(0, 2, 0.0), (6, 2, 300.0), (7, 2, 400.0)]
)
def test_time_is_kept_for_the_confirmation_at_the_pace_so_far(confirming, at_once, reserved_s):
    progress = SweepProgress(20, 10, at_once, deadline=1000.0, confirming=confirming)
    assert progress.reserved_s() == 0  # nothing is known yet
    progress.apply({"event": "trial", "trial": "0000", "values": {}, "at": 0.0})
    progress.apply({"event": "start", "trial": "0000", "at": 0.0})
    metrics = {"val/miou": 0.5}
    progress.apply({"event": "epoch", "trial": "0000", "epoch": 1, "metrics": metrics, "at": 10.0})
    assert progress.reserved_s() == pytest.approx(reserved_s)
    assert progress.left_s(10.0) <= 1000.0 - reserved_s - 10.0
