"""Sweeps whose trials are cross-validated: through Ray, compared, resumed, promoted."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sweeps.cli.compare import app as compare
from sweeps.cli.promote import app as promote
from tests.support.data_folders import write_folder_dataset
from tests.support.databases import new_database
from tests.support.sweep_command import Place, run_here
from tests.support.trials_here import trials_here

TINY = [
    *("--gpus", 0, "--max-concurrent", 1, "--cpus-per-trial", 1, "--trials", 2, "--epochs", 2),
    *("--set", "batch_size=4", "--set", "data.folds=2", "--skip-preflight"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("folds"))
    new_database(place.root / "mlflow.db")
    return place


def curve(place, run, metric):
    points = place.client.get_metric_history(run.info.run_id, metric)
    return [point.value for point in sorted(points, key=lambda point: point.step)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_reports_means_and_spreads_resumes_and_is_promoted_on_test(place):
    with trials_here():
        plain = ["--set", "asha.enabled=false", "--trials", 1]
        run_here(place.recipe, *place.flags, *TINY, *plain, "--name", "cv")
        run_here("--resume", "cv", "--trials", 2, "--tracking-uri", place.uri)
    (parent,), children = place.runs("cv")
    assert len(children) == 2
    for child in children:
        folds = [curve(place, child, f"fold_{index}/val/miou") for index in range(2)]
        means = [statistics.mean(pair) for pair in zip(*folds, strict=True)]
        assert curve(place, child, "val/miou") == pytest.approx(means)
        spreads = [statistics.stdev(pair) for pair in zip(*folds, strict=True)]
        assert curve(place, child, "val/miou/std") == pytest.approx(spreads)
        assert child.data.metrics["best/val/miou"] == pytest.approx(max(means))
    where = place.client.download_artifacts(parent.info.run_id, "splits.json")
    splits = json.loads(Path(where).read_text())
    assert set(splits) == {"fold_0", "fold_1", "test"}
    assert sum(len(splits[f"fold_{index}"]["images"]) for index in range(2)) == 7
    tracked = ["--tracking-uri", place.uri]
    table = CliRunner().invoke(compare, ["cv", "--format", "csv", *tracked])
    assert "val/miou/std" in table.output.splitlines()[0]
    done = CliRunner().invoke(promote, ["cv", "--gpus", "0", *tracked])
    assert done.exit_code == 0, done.output


def test_without_a_test_split_promotion_is_refused_with_what_to_do(place, tmp_path):
    write_folder_dataset(tmp_path / "data", {"": 8}, size=(32, 40))
    flags = [*place.flags]
    flags[1] = tmp_path / "data"
    with trials_here():
        run_here(place.recipe, *flags, *TINY, "--trials", 1, "--epochs", 1, "--name", "untested")
    for more in ([], ["--split", "val"], ["--force"]):
        asked = ["untested", "--gpus", "0", "--tracking-uri", place.uri, *more]
        refused = CliRunner().invoke(promote, asked)
        assert refused.exit_code == 2
        assert "data.test_fraction=0.2" in refused.output


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_through_ray_and_with_early_stopping(place):
    said = run_here(place.recipe, *place.flags, *TINY, "--name", "ray")
    assert "ray" in said
    _, children = place.runs("ray")
    assert len(children) == 2
    for child in children:
        assert child.data.tags["stop_reason"] in ("completed", "asha")
        folds = [child.data.metrics[f"fold_{index}/val/miou"] for index in range(2)]
        assert child.data.metrics["val/miou"] == pytest.approx(statistics.mean(folds))
