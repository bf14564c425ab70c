"""Sweeps with another objective or several: table, exports, report, MLflow's view, list."""

from __future__ import annotations

import base64
import json
import zlib

import pandas as pd
import pytest
from typer.testing import CliRunner

from sweeps.cli.compare import app
from sweeps.config.budget import Objective
from sweeps.config.goals import Goals, goals_of
from sweeps.leaderboard.ranking import rank_trials
from sweeps.leaderboard.trials import parameter_columns, trials_frame
from sweeps.report import write_report
from sweeps.report.findings import findings
from sweeps.report.page import plots
from sweeps.report.sweep_data import load_sweep_data
from sweeps.tracking.store import PRIMARY_METRIC, open_store
from sweeps.tracking.sweep_list import sweep_rows
from tests.support.planted_sweeps import write_sweep
from unetexp.tracking.locate import score_of

BOTH = Goals((Objective(), Objective.model_validate("latency_ms")))
CLASS = Goals((Objective.model_validate("val/iou/cell"),))


def trial(score, latency, reason="completed"):
    curve = [score - 0.1, score, score - 0.2]
    return {
        "params": {"encoder.freeze": "none"},
        "curve": curve,
        "latency": latency,
        "reason": reason,
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('goals')}/mlflow.db")
    write_sweep(store, "class", [trial(0.5, 9.0), trial(0.6, 9.0)], goals=CLASS)
    trials = [
        trial(0.7, 20.0),  # 0000: as slow as 0001 and worse
        trial(0.8, 20.0),
        trial(0.6, 10.0),
        trial(0.5, 12.0),  # 0003: worse and slower than 0002
        trial(0.9, 1.0, reason="asha"),
    ]
    write_sweep(store, "both", trials, goals=BOTH)
    return store


def call(store, *arguments):
    done = CliRunner().invoke(app, [*arguments, "--tracking-uri", store.uri])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_front_of_full_budget_trials_is_marked(store):
    frame = trials_frame(store, ["both"])
    assert frame["trial"].tolist() == ["0001", "0000", "0002", "0003", "0004"]
    assert frame["pareto"].tolist() == [True, False, True, False, False]
    assert "pareto" not in parameter_columns(frame)
    first = rank_trials(frame, sort="pareto", where=None, top=2).rows
    assert first["trial"].tolist() == ["0001", "0002"]
    assert len(rank_trials(frame, sort=None, where="pareto", top=None).rows) == 2


def test_one_objective_has_no_such_column(store):
    frame = trials_frame(store, ["class"])
    assert "pareto" not in frame
    assert frame["best/val/iou/cell"].tolist() == [0.6, 0.5]
    assert "best/val/miou" not in frame


def test_it_is_printed_and_exported(store, tmp_path):
    table = call(store, "both")
    assert "pareto" in table
    assert table.count("yes") == 2
    call(store, "both", "--out", str(tmp_path / "both.csv"))
    assert pd.read_csv(tmp_path / "both.csv")["pareto"].sum() == 2
    call(store, "both", "--out", str(tmp_path / "both.json"))
    rows = json.loads((tmp_path / "both.json").read_text())
    assert [row["trial"] for row in rows if row["pareto"]] == ["0001", "0002"]


def test_sweeps_of_different_scores_keep_their_own(store):
    said = call(store, "both", "class")
    assert "compared by different scores: best/val/miou, best/val/iou/cell" in said
    frame = trials_frame(store, ["both", "class"])
    assert frame["best/val/miou"].notna().sum() == 5
    assert frame["best/val/iou/cell"].notna().sum() == 2


def test_the_report_follows_the_objectives(store, tmp_path):
    both, alone = load_sweep_data(store, "both"), load_sweep_data(store, "class")
    (chart,) = [chart for chart in plots(both, []) if chart.key == "prices"]
    assert chart.title == "mIoU against latency"
    line = next(trace for trace in chart.data if trace["name"] == "Pareto front")
    assert (line["x"], line["y"]) == ([10.0, 20.0], [0.6, 0.8])
    sentences = [finding.sentence for finding in findings(both, [])]
    assert any("2 full-budget trials are on the Pareto front" in s for s in sentences)
    assert any("0002 (60.0% mIoU, latency_ms 10)" in s for s in sentences)
    page = write_report(store, "class", tmp_path / "class.html").read_text()
    assert "Scores are IoU of cell on the validation split" in page
    assert "mIoU against" not in page
    assert [curve[1] for curve in alone.curves.values()] == [(2, 0.6), (2, 0.5)]
    assert any("60.0% IoU of cell" in f.sentence for f in findings(alone, []))


def test_mlflow_and_the_list_follow_the_objectives(store):
    (both, alone) = store.sweep_runs()
    assert goals_of(both.data.tags) == BOTH
    assert goals_of(alone.data.tags) == CLASS
    assert both.data.metrics["best/val/miou"] == 0.9
    tags = store.client.get_experiment(store.experiment_id).tags
    assert tags[PRIMARY_METRIC] == "best/val/miou"  # of the newest
    for run, columns in ((both, ["best/val/miou", "time/latency_ms"]), (alone, [CLASS.best])):
        state = json.loads(tags[f"mlflow.sharedViewState.{run.info.run_id}"])["state"]
        view = json.loads(zlib.decompress(base64.b64decode(state.removeprefix("deflate;"))))
        assert view["orderByKey"] == f"metrics.`{columns[0]}`"
        assert {f"metrics.`{name}`" for name in columns} <= set(view["selectedColumns"])
    assert {(row.name, row.score, row.best) for row in sweep_rows(store)} == {
        ("both", "val/miou", 0.9),
        ("class", "val/iou/cell", 0.6),
    }
    assert {score_of(run) for run in store.trial_runs(alone.info.run_id)} == {"val/iou/cell"}
