"""`--warm-start auto`: what a new sweep takes over from all earlier ones."""

from __future__ import annotations

import math
import shutil

import pytest

from sweeps.driver.warm_starting import distance
from sweeps.state.ledger import Ledger
from tests.support.data_folders import write_folder_dataset
from tests.support.databases import new_database
from tests.support.sweep_command import FEW, Place, refusal, run_here
from tests.support.trials_here import trials_here


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store with one finished sweep, `before`, on `place.data`."""
    place = Place(tmp_path_factory.mktemp("warm"))
    new_database(place.root / "mlflow.db")
    with trials_here():
        run_here(place.recipe, *place.flags, *FEW, "--name", "before")
    return place


def ledger(place, name):
    return Ledger(place.storage / name / "ledger.jsonl", write=False)


def best_values(place, name):
    scores = {
        event["trial"]: event["metrics"]["val/miou"] for event in ledger(place, name).of("epoch")
    }
    best = max(scores, key=scores.get)
    return next(e["values"] for e in ledger(place, name).of("trial") if e["trial"] == best)


@pytest.fixture(scope="module")
def other_data(place):
    """Other images with as many channels, classes and pixels."""
    data = place.root / "other"
    write_folder_dataset(data, splits={"train": 5, "val": 2}, size=(40, 48), classes=3, seed=9)
    return data


def test_on_the_same_data_it_knows_the_trials(place):
    said = run_here(place.recipe, *place.flags, *FEW, "--dry-run", "--warm-start", "auto")
    assert "warm start: knows 3 trials of before, on the same data" in said
    assert "tries first" not in said


def test_on_data_alike_the_best_settings_are_tried_first(place, other_data):
    flags = ["--data", other_data, *place.flags[2:], *FEW]
    with trials_here():
        said = run_here(
            place.recipe, *flags, "--trials", 2, "--name", "alike", "--warm-start", "auto"
        )
    assert "tries first what was best in before (4 training images, 3 classes)" in said
    first, second = ledger(place, "alike").of("trial")
    assert first["values"] == best_values(place, "before")
    assert second["values"] != first["values"]
    assert not list(ledger(place, "alike").of("known"))
    (parent,), _ = place.runs("alike")
    assert "tries first" in parent.data.tags["sweep.warm_start"]


def test_other_epochs_make_scores_incomparable(place):
    flags = [*place.flags, *FEW, "--epochs", 2, "--dry-run", "--warm-start", "auto"]
    said = run_here(place.recipe, *flags)
    assert "knows" not in said and "tries first what was best in before" in said


def test_data_of_another_kind_teaches_nothing(place):
    data = place.root / "binary"
    write_folder_dataset(data, splits={"train": 4, "val": 3}, size=(40, 48), classes=2)
    flags = ["--data", data, *place.flags[2:], *FEW, "--dry-run", "--warm-start", "auto"]
    said = run_here(place.recipe, *flags)
    assert "warm start: no earlier sweep on this data, or on data that is alike" in said


def test_a_sweep_whose_files_are_gone_or_damaged_is_passed_over(place, tmp_path):
    kept = tmp_path / "kept"
    shutil.copytree(place.storage / "before", kept)
    file = place.storage / "before" / "ledger.jsonl"
    try:
        lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join([lines[0], b'{"event": \n', *lines[1:]]))
        said = run_here(place.recipe, *place.flags, *FEW, "--dry-run", "--warm-start", "auto")
        assert "of before" not in said
    finally:
        shutil.copy(kept / "ledger.jsonl", file)


def test_no_sweep_can_be_called_auto(place):
    assert "--warm-start auto means" in refusal(place.recipe, *place.flags, "--name", "auto")


DATA = {
    "classes": ["a", "b", "c"],
    "channels": 3,
    "image_max": 255,
    "splits": {"train": {"images": 40, "height_px": [64, 64], "width_px": [64, 64]}},
}


class TestDistance:
    def changed(self, **changes):
        train = {**DATA["splits"]["train"], **changes.pop("train", {})}
        return {**DATA, **changes, "splits": {"train": train}}

    def test_a_set_is_at_no_distance_from_itself(self):
        assert distance(DATA, DATA) == 0

    def test_it_grows_with_the_area_and_is_symmetric(self):
        twice = self.changed(train={"height_px": [128, 128]})
        more = self.changed(train={"height_px": [512, 512]})
        assert 0 < distance(DATA, twice) < distance(DATA, more)
        assert distance(DATA, more) == distance(more, DATA)

    @pytest.mark.parametrize("changes", [{"channels": 1}, {"classes": ["a", "b"]}])
    def test_other_channels_or_a_binary_set_are_not_alike(self, changes):
        assert math.isinf(distance(DATA, self.changed(**changes)))

    def test_folds_stand_for_the_training_images(self):
        folds = {**DATA, "splits": {}, "folds": [DATA["splits"]["train"]]}
        assert distance(DATA, folds) == 0
