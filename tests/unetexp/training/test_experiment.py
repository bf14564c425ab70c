"""An experiment's files: written beside training, complete when it matters, equal to any other."""

from __future__ import annotations

import json
import os
import shutil
import threading
from contextlib import closing

import pytest
import torch

import unetexp
from tests.support.data_folders import write_folder_dataset
from tests.support.small_config import config_with
from unetexp.compute.settings import ComputeSettings
from unetexp.data import Folder, open_dataset
from unetexp.training.experiment import BEST, Experiment, best_figures, overlays

CPU = torch.device("cpu")
EPOCHS = 3
RISING = {epoch: 0.1 * epoch for epoch in range(1, EPOCHS + 1)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_folder_dataset(root, splits={"train": 2, "val": 2}, size=(32, 40), classes=3)
    return open_dataset(Folder(root=str(root)))


@pytest.fixture
def scores(monkeypatch):
    """Makes every epoch's score one that is known before, by default always a better one."""
    known = dict(RISING)
    record = unetexp.TrainState.record
    monkeypatch.setattr(
        unetexp.TrainState,
        "record",
        lambda state, metrics, _, **kept: record(state, metrics, known[state.epoch], **kept),
    )
    return known


@pytest.fixture
def slow(monkeypatch):
    """Holds the writer's jobs until the event is set."""
    gate = threading.Event()
    write = Experiment._write_best

    def wait(*arguments):
        assert gate.wait(60)
        write(*arguments)

    monkeypatch.setattr(Experiment, "_write_best", wait)
    yield gate
    gate.set()


def experiment(data, folder, **changes):
    return Experiment(config_with(**{"epochs": EPOCHS} | changes), data, folder, CPU)


def best_epoch(folder):
    return best_figures(folder)["epoch"]


def content(folder):
    """Everything in the folder that does not hold a wall time."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    metrics = json.loads(found[f"{BEST}/metrics.json"])
    timeless = {k: v for k, v in metrics["metrics"].items() if not k.startswith("time/")}
    found[f"{BEST}/metrics.json"] = {**metrics, "metrics": timeless}
    return found


def test_the_best_model_is_on_disk_when_its_epoch_is_reported(data, tmp_path, scores):
    for report in experiment(data, tmp_path).run():
        assert best_epoch(tmp_path) == report.epoch


def test_training_goes_on_while_files_are_written(data, tmp_path, scores, slow):
    ours = experiment(data, tmp_path)
    with closing(ours.run(checkpoint_every_s=60, durable_epochs=())) as reports:
        assert [next(reports).epoch, next(reports).epoch] == [1, 2]
        assert not (tmp_path / BEST).exists()
        slow.set()
    assert best_epoch(tmp_path) == 2


def test_a_durable_epoch_is_on_disk_when_it_is_reported(data, tmp_path, scores):
    for report in experiment(data, tmp_path).run(durable_epochs={2}):
        if report.epoch in (2, EPOCHS):
            assert best_epoch(tmp_path) == report.epoch


def test_an_epoch_whose_score_is_not_finite_is_durable(data, tmp_path, monkeypatch):
    ours = experiment(data, tmp_path)
    wait = unetexp.training.experiment.FileWriter.flush
    flushed = []
    monkeypatch.setattr(
        unetexp.training.experiment.FileWriter,
        "flush",
        lambda files: (wait(files), flushed.append(1)),
    )
    fit = unetexp.training.experiment.fit

    def spoilt(*arguments, **options):
        for report in fit(*arguments, **options):
            report.metrics["val/miou"] = float("nan")
            yield report

    monkeypatch.setattr(unetexp.training.experiment, "fit", spoilt)
    with closing(ours.run(durable_epochs=())) as reports:
        next(reports)
    assert flushed


def test_files_do_not_depend_on_when_they_are_written(data, tmp_path):
    for name, durable in (("each", None), ("last", ())):
        list(experiment(data, tmp_path / name).run(durable_epochs=durable))
    assert content(tmp_path / "each") == content(tmp_path / "last")
    assert sorted(overlays(tmp_path / "last")) == [1, 2, 3]


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_run_that_was_killed_between_best_and_checkpoint_repeats_and_ends_equal(
    data, tmp_path, epoch, scores
):
    """What is on the disk after a kill -9 is a copy of the folder, taken in the writer's thread."""
    folder, killed, written = tmp_path / "run", tmp_path / "killed", []

    def copy():
        written.append(None)
        if len(written) == 2 * epoch:  # best 1, checkpoint 1, best 2, ...
            shutil.copytree(folder, killed)

    whole = experiment(data, folder)
    list(whole.run(durable_epochs=(), on_written=copy))
    resumed = experiment(data, killed)
    assert resumed.state.epoch == epoch
    assert resumed.state.best_epoch == best_epoch(killed) == epoch
    assert [report.epoch for report in resumed.run()] == list(range(epoch + 1, EPOCHS + 1))
    assert content(killed) == content(folder)


def test_no_checkpoint_is_of_a_best_epoch_that_is_not_on_the_disk(data, tmp_path, scores):
    found = []

    def look():
        checkpoints = sorted(tmp_path.glob("epoch-*"))
        if checkpoints:
            state = torch.load(checkpoints[-1] / "state.pt", weights_only=True)
            found.append((state["best_epoch"], best_epoch(tmp_path)))

    list(experiment(data, tmp_path).run(durable_epochs=(), on_written=look))
    assert found
    assert all(recorded <= on_disk for recorded, on_disk in found)


def test_no_checkpoint_is_of_an_epoch_that_was_not_reported(data, tmp_path, scores):
    with closing(experiment(data, tmp_path).run(durable_epochs=())) as reports:
        for _ in range(3):
            next(reports)
    assert max(path.name for path in tmp_path.glob("epoch-*")) == "epoch-00002"


@pytest.mark.parametrize("what", ["_write_best", "save"])
def test_a_full_disk_in_the_thread_ends_the_run_at_the_next_report(data, tmp_path, what, scores):
    ours, seen = experiment(data, tmp_path), []
    target = ours if what == "_write_best" else ours._checkpoints

    def full(*_):
        raise OSError(28, os.strerror(28))

    setattr(target, what, full)
    with pytest.raises(OSError, match="No space left"):
        seen.extend(report.epoch for report in ours.run(durable_epochs=()))
    assert len(seen) <= 2
    assert not list(tmp_path.glob("epoch-*"))  # what came later was not written either


def test_measured_settings_decide_what_is_auto(data, tmp_path):
    measured = ComputeSettings("bf16", "channels_last")
    config = config_with(epochs=EPOCHS, memory_format="contiguous")
    ours = Experiment(config, data, tmp_path, CPU, compute=measured)
    assert ours.state.compute.precision == "bf16"
    assert ours.state.compute.memory_format == "contiguous"


def test_another_score_than_miou_makes_the_best_epoch(data, tmp_path, monkeypatch):
    evaluate = unetexp.training.loop.evaluate
    falling = iter([0.5, 0.7, 0.6])

    def planted(*arguments, **named):
        found = evaluate(*arguments, **named)
        found.metrics["iou/1"] = next(falling)
        return found

    monkeypatch.setattr(unetexp.training.loop, "evaluate", planted)
    config = config_with(epochs=EPOCHS)
    run = Experiment(config, data, tmp_path, CPU, score="val/iou/1")
    assert [report.improved for report in run.run()] == [True, True, False]
    assert (run.state.best_score, best_epoch(tmp_path)) == (0.7, 2)
