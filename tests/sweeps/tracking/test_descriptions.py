"""The descriptions that MLflow shows, and their text."""

from __future__ import annotations

import pytest

from sweeps.config.loading import load_recipe
from sweeps.state.progress import SweepProgress
from sweeps.state.stop_reason import StopReason, label_of
from sweeps.text import count, settings
from sweeps.tracking.descriptions import sweep_note, sweep_outcome, trial_note
from tests.support.data_folders import write_folder_dataset
from unetexp.data import open_dataset

VALUES = {"loss.kind": "focal", "optimizer.lr": 0.00123456}


@pytest.fixture
def progress():
    return SweepProgress(trials=3, epochs=2, at_once=1)


def play(progress, trial, scores, reason):
    progress.apply({"event": "trial", "at": 0, "trial": trial, "values": VALUES})
    progress.apply({"event": "start", "at": 0, "trial": trial})
    for epoch, score in enumerate(scores, start=1):
        metrics = {"val/miou": score}
        progress.apply(
            {"event": "epoch", "at": epoch, "trial": trial, "epoch": epoch, "metrics": metrics}
        )
    progress.apply({"event": "end", "at": 9, "trial": trial, "reason": reason})


def test_a_sweep_says_what_it_varies_on_which_data_and_how_to_go_on(tmp_path):
    root = write_folder_dataset(tmp_path / "data", {"train": 3, "val": 2}, classes=12)
    recipe = load_recipe("folder", {"budget.trials": 1, "epochs": 1}, str(root))
    note = sweep_note("mine", recipe, open_dataset(recipe.base.data))
    assert "1 trial of at most 1 epoch." in note
    for path, dimension in recipe.space.items():
        assert f"- `{path}`: {dimension.describe()}" in note
    assert "images: 3 train, 2 val; 12 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more." in note
    assert "`python sweeps/compare.py mine`" in note
    assert "`python sweeps/promote.py mine`" in note


def test_the_outcome_names_the_best_trial_of_the_full_budget(progress):
    play(progress, "0000", [0.1, 0.4], "completed")
    play(progress, "0001", [0.9], "asha")
    play(progress, "0002", [], "oom")
    text = sweep_outcome(StopReason.COMPLETED, progress)
    assert "1 completed, 1 stopped early, 1 failed, 0 interrupted" in text
    assert "trial **0000**, `val/miou` **0.4000** in epoch 2, with loss.kind=focal" in text


def test_the_outcome_says_when_no_trial_had_the_full_budget(progress):
    assert "None has a score." in sweep_outcome(StopReason.INTERRUPTED, progress)
    play(progress, "0001", [0.9], "asha")
    text = sweep_outcome(StopReason.TIME_BUDGET, progress)
    assert text.startswith("Ended: time budget spent.")
    assert "none of them with the full budget: trial **0001**" in text


def test_a_trial_says_its_settings():
    assert "with loss.kind=focal, optimizer.lr=0.00123." in trial_note("0007", VALUES)
    assert trial_note("0007", {}).startswith("Trial **0007**. ")


def test_words():
    assert label_of("asha") == "stopped early"
    assert label_of("another") == "another"
    assert (count(1, "trial"), count(0, "trial")) == ("1 trial", "0 trials")
    assert settings({"a": None, "b": True, "c": 3}) == "a=None, b=True, c=3"
