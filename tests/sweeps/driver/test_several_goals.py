"""Real sweeps with several objectives and with that of a class, resumed, compared, promoted."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from sweeps.cli.promote import app as promote
from sweeps.leaderboard.trials import trials_frame
from sweeps.state.ledger import Ledger
from sweeps.tracking.store import open_store
from tests.support.databases import new_database
from tests.support.sweep_command import Place, refusal, run_here
from unetexp.training.experiment import best_figures

pytestmark = pytest.mark.slow
TINY = [
    *("--gpus", 0, "--max-concurrent", 1, "--cpus-per-trial", 1, "--trials", 2, "--epochs", 2),
    *("--set", "asha.enabled=false", "--set", "batch_size=4", "--skip-preflight"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("goals"))
    new_database(place.root / "mlflow.db")
    return place


@pytest.mark.timeout(900)
def test_two_objectives(place):
    goals = ["--set", "objective=[val/miou, latency_ms]", "--set", "budget.keep_models=1"]
    said = run_here(place.recipe, *place.flags, *TINY, *goals, "--name", "two")
    assert "Pareto front of val/miou (max), latency_ms (min): trials " in said
    tracked = ["--tracking-uri", place.uri]
    assert "2 of 2 trials are finished" in run_here("--resume", "two", "--trials", 3, *tracked)
    refused = refusal("--resume", "two", "--set", "objective=val/miou", *tracked)
    assert "objective" in refused

    ledger = Ledger(place.storage / "two" / "ledger.jsonl", write=False)
    assert len([event for event in ledger.of("end") if event["reason"] == "completed"]) == 3
    (_,), children = place.runs("two")
    frame = trials_frame(open_store(place.uri), ["two"])
    front = set(frame.loc[frame["pareto"], "trial"])
    assert front
    held = {
        child.data.tags["tune.trial_id"] for child in children if "checkpoint" in child.data.tags
    }
    assert held == front | {frame["trial"][0]}
    done = CliRunner().invoke(
        promote, ["two", "--max-latency-ms", "60000", "--gpus", "0", *tracked]
    )
    assert done.exit_code == 0, done.output
    assert f"trial {frame['trial'][0]} of sweep two" in done.output


@pytest.mark.timeout(900)
def test_the_iou_of_a_class(place):
    goal = ["--set", "objective.metric=val/iou/1"]
    run_here(place.recipe, *place.flags, *TINY, *goal, "--name", "class")
    run_here("--resume", "class", "--trials", 3, "--tracking-uri", place.uri)
    (parent,), children = place.runs("class")
    assert len(children) == 3
    for child in children:
        points = place.client.get_metric_history(child.info.run_id, "val/iou/1")
        best = max(points, key=lambda point: point.value)
        assert child.data.metrics["best/val/iou/1"] == best.value
        assert child.data.metrics["best/epoch"] == best.step
        assert "val/miou" in child.data.metrics
        folder = place.storage / "class" / "trials" / child.data.tags["tune.trial_id"]
        assert best_figures(folder)["epoch"] == best.step
    bests = [child.data.metrics["best/val/iou/1"] for child in children]
    assert parent.data.metrics["best/val/iou/1"] == max(bests)
