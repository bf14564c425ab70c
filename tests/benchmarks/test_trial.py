"""What a trial costs beside its training, from a ledger and from a folder."""

from __future__ import annotations

import argparse

import pytest
import torch

from benchmarks import between_epochs, trial
from unetexp.training import experiment
from unetexp.training.writer import FileWriter


def epoch(at, train_s, val_s):
    return {"event": "epoch", "at": at, "metrics": {"time/train_s": train_s, "time/val_s": val_s}}


def test_training_and_validation_are_subtracted():
    events = [
        {"event": "start", "at": 0.0},
        epoch(10.0, 1.0, 1.0),  # the first trial's start includes its worker's
        epoch(13.0, 2.0, 0.5),
        {"event": "end", "at": 13.5},
        {"event": "start", "at": 13.6},
        epoch(16.0, 1.5, 0.25),
        epoch(18.0, 1.0, 0.25),
        {"event": "end", "at": 18.0},
    ]
    starts, epochs = trial.seconds_beside(events)
    assert starts == pytest.approx([0.75])
    assert epochs == pytest.approx([0.5, 0.75])


def test_trials_with_and_without_weights_are_told_apart(tmp_path):
    for name, weights in (("0000", True), ("0001", False), ("0002", False)):
        best = tmp_path / "trials" / name / "best"
        best.mkdir(parents=True)
        (best / "config.json").write_bytes(b"x" * 10)
        if weights:
            (best / trial.WEIGHTS).write_bytes(b"x" * 1000)
    (tmp_path / "ledger.jsonl").write_bytes(b"x" * 5)
    assert trial.disk_of(tmp_path) == trial.Disk(1, 2, 1010, 10, 1035)


def test_the_construction_in_a_warm_process_is_timed():
    seconds = trial.construct_seconds(torch.device("cpu"), "resnet18", "slim", repeats=1)
    assert len(seconds) == 1
    assert 0 < seconds[0] < 60


def test_files_are_written_by_the_thread_and_in_the_loop_in_turns(monkeypatch):
    monkeypatch.setattr(between_epochs, "IMAGES", 2)
    thread, loop = between_epochs.beside_epochs(
        torch.device("cpu"), "resnet18", "slim", epochs=3, rounds=1
    )
    for arm in (thread, loop):
        assert len(arm.between_s) == len(arm.epoch_s) == 1  # neither the first nor the last
        assert 0 < arm.between_s[0] < arm.epoch_s[0]
    assert experiment.FileWriter is FileWriter  # put back


@pytest.mark.slow
def test_a_real_sweep_is_measured(tmp_path):
    options = argparse.Namespace(encoder="resnet18", decoder="slim", trials=3, epochs=2, quick=True)
    found = trial.measured(options)
    assert len(found.construct_s) == 3
    assert len(found.start_s) == 2  # the trials after the first
    assert all(seconds > 0 for seconds in found.start_s)
    assert found.disk.whole + found.disk.pruned == 3
    assert found.store_bytes > 2.9 * found.disk.whole_bytes  # all three keep their weights
    assert "start in a warm worker" in trial.table(found)
