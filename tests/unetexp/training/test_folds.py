"""Cross-validation: k models in lockstep that are one experiment to everything else."""

from __future__ import annotations

import statistics
from contextlib import closing

import pytest
import torch

from tests.support.data_folders import write_folder_dataset
from tests.support.small_config import config_with
from unetexp.data import Folder, open_dataset
from unetexp.data.folded import rounds
from unetexp.inference.evaluation import assess
from unetexp.inference.predictor import Predictor
from unetexp.models.saved_model import load, read_spec
from unetexp.training.experiment import BEST, Experiment, best_figures
from unetexp.training.loop import fit
from unetexp.training.state import TrainState

CPU = torch.device("cpu")
FOLDS, EPOCHS = 2, 2


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_folder_dataset(root, splits={"": 9}, size=(32, 40), classes=3)
    return open_dataset(Folder(root=str(root), folds=FOLDS, test_fraction=0.2))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A finished run: the experiment and its reports."""
    experiment = Experiment(
        config_with(epochs=EPOCHS), data, tmp_path_factory.mktemp("run") / "run", CPU
    )
    return experiment, list(experiment.run())


def timeless(metrics):
    return {name: value for name, value in metrics.items() if "time/" not in name}


def test_a_metric_is_the_mean_over_the_folds_and_has_a_spread(run):
    _, reports = run
    assert [report.epoch for report in reports] == [1, 2]
    for metrics in (report.metrics for report in reports):
        for name in ("val/miou", "val/dice", "val/loss", "val/iou/1", "train/loss"):
            own = [metrics[f"fold_{index}/{name}"] for index in range(FOLDS)]
            assert metrics[name] == pytest.approx(statistics.mean(own), abs=1e-12)
        own = [metrics[f"fold_{index}/val/miou"] for index in range(FOLDS)]
        assert metrics["val/miou/std"] == pytest.approx(statistics.stdev(own), abs=1e-12)
        assert not any(name.endswith("iou/1/std") for name in metrics)


def test_a_fold_is_what_one_model_on_its_data_would_be(data, run):
    """Of the first epoch of the first fold: later ones draw other numbers, for dropout."""
    _, reports = run
    config, first = config_with(epochs=EPOCHS), rounds(data)[0]
    alone = next(fit(config, first, TrainState(config, first, CPU)))
    for name, value in timeless(alone.metrics).items():
        if name.startswith("val/"):
            assert reports[0].metrics[f"fold_0/{name}"] == value


def test_every_image_outside_test_is_judged_once(data, run):
    _, reports = run
    evaluation = reports[-1].evaluation
    assert len(evaluation.image_miou) == len(data["val"]) == 7
    pixels = sum(int((sample.mask != 255).sum()) for sample in data["val"])
    assert int(evaluation.confusion.sum()) == pixels
    for index, labels in evaluation.predictions.items():
        assert labels.shape == data["val"].shapes[index]
    assert len(evaluation.worst) == 4
    lowest = sorted(float(miou) for miou in evaluation.image_miou)[:4]
    assert [float(evaluation.image_miou[index]) for index in evaluation.worst] == lowest


def test_the_best_epoch_is_that_of_the_best_mean(run):
    experiment, reports = run
    best = max(reports, key=lambda report: report.metrics["val/miou"])
    record = best_figures(experiment.folder)
    assert record["epoch"] == best.epoch
    assert record["metrics"]["val/miou"] == best.metrics["val/miou"]
    assert {path.name for path in (experiment.folder / BEST).iterdir()} >= {
        "overlay.png",
        "worst.png",
    }


def test_one_epoch_and_a_resumed_one_are_two_to_the_bit(data, run, tmp_path):
    config = config_with(epochs=EPOCHS)
    with closing(Experiment(config, data, tmp_path, CPU).run()) as reports:
        next(reports)
        next(reports)  # the state of the first is written by now
    assert [path.name for path in tmp_path.glob("epoch-*")] == ["epoch-00001"]
    resumed = Experiment(config, data, tmp_path, CPU)
    assert resumed.state.epoch == 1
    (second,) = resumed.run()
    whole, reports = run
    assert timeless(second.metrics) == timeless(reports[1].metrics)
    assert [timeless(epoch) for epoch in resumed.state.history] == [
        timeless(epoch) for epoch in whole.state.history
    ]
    ours, theirs = (
        experiment.state.evaluated_model.state_dict() for experiment in (resumed, whole)
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_saved_model_averages_the_folds_probabilities(data, run):
    experiment, reports = run
    folder = experiment.folder / BEST
    model, spec = load(folder), read_spec(folder)
    assert spec.folds == FOLDS
    image = torch.rand(1, 3, 32, 40)
    with torch.inference_mode():
        found = model(image).softmax(dim=1)
        own = [member(image).softmax(dim=1) for member in model.members]
    assert torch.allclose(found, torch.stack(own).mean(dim=0), atol=1e-6)
    if reports[-1].improved:
        last = experiment.state.folds[1].evaluated_model.eval()
        with torch.inference_mode():
            assert torch.allclose(last(image).softmax(dim=1), own[1], atol=1e-6)


def test_the_saved_model_predicts_and_is_evaluated_on_test(data, run):
    experiment, _ = run
    model, spec = load(experiment.folder / BEST), read_spec(experiment.folder / BEST)
    labels = Predictor(model, spec).labels(data["test"][0].image)
    assert labels.shape == data["test"].shapes[0]
    found = assess(model, spec, data, "test", CPU)
    assert found.image_names == data["test"].names


def test_figures_are_those_of_all_models(run):
    experiment, _ = run
    figures = experiment.model_figures()
    one = sum(p.numel() for p in experiment.state.folds[0].model.parameters())
    assert figures["model/parameters"] == FOLDS * one


def test_without_folds_a_saved_model_is_described_as_before(tmp_path):
    root = write_folder_dataset(tmp_path / "data", size=(32, 40))
    plain = open_dataset(Folder(root=str(root)))
    list(Experiment(config_with(epochs=1), plain, tmp_path / "run", CPU).run())
    assert "folds" not in read_spec(tmp_path / "run" / BEST).tree()
