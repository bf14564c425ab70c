"""The figures at the end of training: equal to `evaluate`'s, on the images that were asked for."""

from __future__ import annotations

import math

import pytest
import torch

from tests.support.data_folders import write_folder_dataset
from tests.support.small_config import config_with
from unetexp.data import Folder, open_dataset
from unetexp.data.folded import rounds
from unetexp.errors import DataError
from unetexp.inference.evaluation import assess, train_config
from unetexp.inference.evaluation_results import intervals_of
from unetexp.inference.validation_figures import (
    chosen_images,
    read_figures,
    tracked,
    write_figures,
)
from unetexp.metrics.figures.collector import FigureCollector
from unetexp.metrics.figures.settings import FigureSettings, ValidationFigures
from unetexp.models.saved_model import load, read_spec
from unetexp.training.experiment import BEST, Experiment
from unetexp.training.losses import loss_for
from unetexp.training.validation import evaluate

CPU = torch.device("cpu")
ALL = ValidationFigures(FigureSettings(tolerance=1.0), "all")


def trained(tmp_path, **data):
    """A finished experiment of an epoch, on images of two sizes."""
    root = write_folder_dataset(tmp_path / "images", {"": 9}, (40, 48), 3)
    source = Folder(root=str(root), test_fraction=0.0, **data)
    config = config_with(epochs=1, precision="fp32").model_copy(update={"data": source})
    experiment = Experiment(config, open_dataset(source), tmp_path / "run", CPU)
    list(experiment.run())
    return experiment


def written(experiment, wanted):
    write_figures(
        experiment.folder,
        experiment.config,
        experiment.data,
        CPU,
        experiment.state.compute,
        wanted,
    )
    return read_figures(experiment.folder)


def test_they_are_those_that_evaluate_finds(tmp_path):
    experiment = trained(tmp_path, val_fraction=0.4)
    assert read_figures(experiment.folder) is None
    found = written(experiment, ALL)
    best = experiment.folder / BEST
    own = assess(
        load(best),
        read_spec(best),
        experiment.data,
        "val",
        CPU,
        train=train_config(best),
        figures=ALL.settings,
    )
    assert found["figures"] == intervals_of(own.figures)
    assert found["settings"]["tolerance"] == 1.0
    assert (found["epoch"], found["images"], found["of"]) == (1, len(own.image_names), 4)
    assert found["figures"]["hd95/1"]["unit"] == "px"
    values = tracked(found)
    assert {"val/ece", "val/hd95", "val/nsd/1", "val/missed_images/2"} <= values.keys()
    assert not [name for name in values if name.startswith(("val/iou/", "val/dice/"))]
    assert all(map(math.isfinite, values.values()))


def test_without_the_files_that_know_the_size_of_pixels_they_are_in_pixels(tmp_path, monkeypatch):
    experiment = trained(tmp_path, val_fraction=0.4)

    def gone(*_):
        raise DataError("no such volume")

    monkeypatch.setattr(Folder, "spacings_mm", gone)
    given = (experiment.folder, experiment.config, experiment.data, CPU, experiment.state.compute)
    (note,) = write_figures(*given, ALL)
    assert "in pixels" in note
    assert "no such volume" in note
    monkeypatch.setattr(Folder, "spacings_mm", lambda _, names: dict.fromkeys(names, (3.0, 3.0)))
    in_px = read_figures(experiment.folder)["figures"]["hd95/1"]
    assert write_figures(*given, ALL) == []
    in_mm = read_figures(experiment.folder)["figures"]["hd95/1"]
    assert (in_px["unit"], in_mm["unit"]) == ("px", "mm")
    assert in_mm["value"] == pytest.approx(3 * in_px["value"])


def test_they_are_of_evenly_spread_images_where_there_are_too_many(tmp_path, monkeypatch):
    experiment = trained(tmp_path, val_fraction=0.6)
    split = experiment.data["val"]
    assert len(split) == 5
    assert chosen_images(split, "auto") == chosen_images(split, "all") == [0, 1, 2, 3, 4]
    assert chosen_images(split, 99) == [0, 1, 2, 3, 4]
    assert chosen_images(split, 3) == [0, 2, 4]
    monkeypatch.setattr(
        "unetexp.inference.validation_figures.SAMPLE_PIXELS", 2 * 40 * 48 + 40 * 48 // 2
    )
    assert chosen_images(split, "auto") == [0, 4]
    found = written(experiment, ValidationFigures(FigureSettings(), "auto"))
    assert (found["images"], found["of"]) == (2, 5)


def test_of_folds_each_image_is_measured_as_the_model_that_has_not_seen_it_labels_it(tmp_path):
    experiment = trained(tmp_path, folds=2)
    data, members = experiment.data, load(experiment.folder / BEST).members
    by_hand = FigureCollector(data.class_names, data["val"].names, ALL.settings)
    first = 0
    for part, member in zip(rounds(data), members, strict=True):

        def observe(index, *measured, first=first):
            by_hand(first + index, *measured)

        loss = loss_for(experiment.config.loss, part)
        evaluate(experiment.config, part, part["val"], member, loss, observe=observe)
        first += len(part["val"])
    expected = intervals_of(by_hand.figures())
    found = written(experiment, ALL)
    assert found["of"] == 9
    assert found["figures"].keys() == expected.keys()
    for name, row in found["figures"].items():
        assert row["value"] == pytest.approx(expected[name]["value"], nan_ok=True), name
    some = written(experiment, ValidationFigures(ALL.settings, 4))
    assert some["images"] == 4
