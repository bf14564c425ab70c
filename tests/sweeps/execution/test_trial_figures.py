"""The figures of a trial that has run all its epochs: from the worker's files into MLflow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ray import tune

from sweeps.execution import trial as trial_module
from sweeps.execution.trial import TrialContext, run_trial
from sweeps.leaderboard.trials import is_figure, trials_frame
from sweeps.report import write_report
from sweeps.search.trial_report import REPORT, EpochFinished, TrialMessage
from sweeps.state.storage import Storage
from sweeps.tracking.store import open_store
from tests.support.data_folders import write_folder_dataset
from tests.support.databases import new_database
from tests.support.small_config import config_with
from tests.support.sweep_command import FEW, Place, run_here
from tests.support.trials_here import trials_here
from unetexp.data import Folder, open_dataset
from unetexp.inference.validation_figures import FIGURES
from unetexp.metrics.figures.settings import FigureSettings, ValidationFigures
from unetexp.training.experiment import BEST

WANTED = ValidationFigures(FigureSettings(), "all")


@pytest.fixture
def heard(tmp_path, monkeypatch):
    """Runs a trial of two epochs; returns its reports."""
    root = write_folder_dataset(tmp_path / "images", {"train": 2, "val": 2}, (32, 40))
    source = Folder(root=str(root))
    config = config_with(epochs=2).model_copy(update={"data": source})
    reports = []
    monkeypatch.setattr(tune, "report", lambda metrics: reports.append(metrics[REPORT]))

    def train(figures):
        storage = Storage(str(tmp_path / "sweep"))
        context = TrialContext(storage, open_dataset(source), "cpu", 1, 0, figures=figures)
        run_trial({"trial": "0000", "config": config.tree()}, context)
        return reports, storage.local_copy("0000") / BEST / FIGURES

    return train


def test_they_are_on_disk_before_the_last_epoch_is_reported(heard):
    reports, file = heard(WANTED)
    first, last = (report for report in reports if isinstance(report, EpochFinished))
    assert "time/figures_s" not in first.metrics
    assert last.metrics["time/figures_s"] > 0
    assert json.loads(file.read_text())["images"] == 2


def test_none_are_computed_where_none_are_wanted(heard):
    reports, file = heard(None)
    assert "time/figures_s" not in reports[-1].metrics
    assert not file.exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "not enough memory"),
        (ValueError("a mask is odd"), "a mask is odd"),
    ],
)
def test_a_trial_is_not_lost_for_them(heard, monkeypatch, error, words):
    def fails(*_):
        raise error

    monkeypatch.setattr(trial_module, "write_figures", fails)
    reports, _ = heard(WANTED)
    assert isinstance(reports[-1], EpochFinished)
    assert words in next(r.text for r in reports if isinstance(r, TrialMessage))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("figures"))
    new_database(place.root / "mlflow.db")
    return place


@pytest.mark.slow
def test_a_sweep_tracks_them_and_its_report_has_their_table(place, tmp_path):
    with trials_here():
        run_here(place.recipe, *place.flags, *FEW, "--trials", 2, "--epochs", 2, "--name", "s")
    store = open_store(place.uri)
    frame = trials_frame(store, ["s"])
    assert frame["val/hd95/1"].notna().all()
    own = {name for name in frame if is_figure(name)}
    assert {"val/hd95", "val/hd95/1", "val/dice_per_image/1", "val/ece"} <= own
    assert not own & {"val/miou", "val/iou/1", "val/dice/1", "val/dice_per_image", "hd95"}
    _, children = place.runs("s")
    for child in children:
        path = place.client.download_artifacts(child.info.run_id, FIGURES)
        record = json.loads(Path(path).read_text())
        (point,) = place.client.get_metric_history(child.info.run_id, "val/nsd/1")
        assert point.value == record["figures"]["nsd/1"]["value"]
        assert point.step == record["epoch"] == child.data.metrics["best/epoch"]
    html = write_report(store, "s", tmp_path / "report.html").read_text()
    assert "Figures of the best trials" in html
    assert "HD95, lower is better" in html
    assert "because the data does not know the size of its pixels" in html
    assert "mean of images, mean of classes" in html
