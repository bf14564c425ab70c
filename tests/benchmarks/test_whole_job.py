"""`benchmarks/whole_job.py`: its file, its tables, and the arms that need no Ray."""

from __future__ import annotations

import argparse
import json

import pytest
import torch

from benchmarks import whole_job
from benchmarks.jobs.job import Clock, Job, Outcome
from benchmarks.jobs.plain import plain_defaults
from benchmarks.jobs.tutorial import start_alike
from tests.support.data_folders import write_folder_dataset
from unetexp.errors import DataError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    place = tmp_path_factory.mktemp("data")
    return str(write_folder_dataset(place, {"train": 8, "val": 2, "test": 2}, (32, 40), 2))


def asked(root, out, **changes):
    told = {"set": root, "minutes": 0.01, "crop_px": 32, "encoder": "resnet18", "weights": "none"}
    more = {"kind": "resnet", "epochs": 1, "seeds": 3, "arms": None, "out": out}
    return argparse.Namespace(**{**told, **more, **changes})


def test_runs_that_the_file_holds_are_not_repeated(root, tmp_path, monkeypatch, capsys):
    seeds = []

    def arm(job, clock):
        assert clock.left <= job.seconds == pytest.approx(0.6)
        seeds.append(job.seed)
        return Outcome(0.5 + job.seed / 10, 0.6, "nothing")

    monkeypatch.setattr(whole_job, "ARMS", {"an arm": arm})
    out = tmp_path / "runs.jsonl"
    whole_job.measure(asked(root, out, seeds=2))
    whole_job.measure(asked(root, out, seeds=3))
    assert seeds == [0, 1, 2]
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record["test_miou"] for record in records] == [0.5, 0.6, 0.7]
    capsys.readouterr()
    whole_job.tables(out)
    said = capsys.readouterr().out
    assert "| an arm | 3 | 0.6000 (0.500, 0.600, 0.700) | 0.6000 | 0.0 |" in said
    assert "crops of 32 px, resnet18 (none)" in said


def test_a_set_without_a_test_split_compares_nothing(tmp_path):
    root = write_folder_dataset(tmp_path / "data", size=(32, 40))
    with pytest.raises(DataError, match="no test split"):
        whole_job.job_of(asked(str(root), None), 0, tmp_path)


def test_the_plain_loop_takes_the_defaults_and_the_time(root, tmp_path):
    encoder = {"kind": "resnet", "name": "resnet18", "weights": "none"}
    job = Job(root, 1.0, 32, encoder, 3, tmp_path)
    assert (job.defaults.seed, job.defaults.augment.crop_px) == (3, 32)
    assert job.defaults.encoder.name == "resnet18"
    found = plain_defaults(job, Clock(job.seconds))
    assert 0 <= found.test_miou <= 1
    assert "epochs, the best" in found.how


def test_encoders_that_differ_do_not_start_alike():
    ours, theirs = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    start_alike(theirs, ours)
    assert torch.equal(theirs.weight, ours.weight)
    with pytest.raises(RuntimeError, match="built otherwise"):
        start_alike(torch.nn.Linear(2, 4), ours)
