"""How many trials share a device: measured with processes on the CPU, and decided from figures."""

from __future__ import annotations

import io
import json
import sys
from contextlib import contextmanager, redirect_stdout

import pytest
import torch

from sweeps.preflight import contention
from sweeps.preflight.contention import measure_throughput, most_productive
from tests.support.data_folders import write_folder_dataset
from unetexp.data import open_dataset
from unetexp.training.config import decode_config


@pytest.mark.parametrize(
    ("throughput", "count"),
    [
        ({1: 100.0}, 1),
        ({1: 100.0, 2: 105.0}, 1),  # not worth it
        ({1: 100.0, 2: 130.0}, 2),
        ({1: 100.0, 2: 130.0, 3: 135.0, 4: 140.0}, 2),
        ({1: 100.0, 2: 130.0, 3: 135.0, 4: 150.0}, 4),
        ({1: 100.0, 2: 90.0, 3: 120.0}, 3),
        ({1: 100.0, 2: 60.0, 3: 50.0, 4: 40.0}, 1),
    ],
)
def test_more_share_a_device_only_where_that_gains_a_tenth(throughput, count):
    assert most_productive(throughput) == count


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_folder_dataset(root, {"train": 4, "val": 2}, (40, 40))
    tree = {
        "data": {"kind": "folder", "root": str(root)},
        "encoder": {"name": "resnet18", "weights": "none"},
        "augment": {"crop_px": 32},
        "batch_size": 4,
    }
    config = decode_config(tree)
    return config, open_dataset(config.data)


def test_a_process_trains_real_steps_for_as_long_as_it_is_told(setting, tmp_path, monkeypatch):
    config, data = setting
    given = []

    @contextmanager
    def here(task, count):
        given.append(task)
        sent = io.BytesIO(json.dumps(task).encode() + b"\n0.1 1\n0.1 1\n")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(sent))
        contention.serve()
        yield []

    monkeypatch.setattr(contention, "_processes", here)
    monkeypatch.setattr(contention, "_rate", lambda processes, order: 1.0)
    threads = torch.get_num_threads()
    told = io.StringIO()
    with redirect_stdout(told):
        found = measure_throughput(config, data, "cpu", images=2, most=2, threads=1)
    torch.set_num_threads(threads)
    assert found == {1: 1.0, 2: 1.0}
    assert given[0]["config"]["batch_size"] == 2
    ready, *rates = [float(line.removeprefix("trained ")) for line in told.getvalue().splitlines()]
    assert ready == 0
    assert len(rates) == 2
    assert min(rates) > 0


READY = "import sys\nsys.stdin.buffer.readline()\nprint('trained 0', flush=True)\n"
ANSWERS = "for line in sys.stdin.buffer: print('trained 12.5', flush=True)"


def test_what_processes_train_at_one_time_is_added_up(setting, monkeypatch):
    monkeypatch.setattr(contention, "_CHILD", READY + ANSWERS)
    found = measure_throughput(*setting, "cpu", images=4, most=3, threads=2)
    assert found == {1: 12.5, 2: 25.0, 3: 37.5}


def test_a_process_that_ends_leaves_its_number_out(setting, monkeypatch):
    ends_at_three = READY + (
        "for n, line in enumerate(sys.stdin.buffer):\n"
        "    if n == 2: sys.exit(1)\n"
        "    print('trained 10', flush=True)"
    )
    monkeypatch.setattr(contention, "_CHILD", ends_at_three)
    found = measure_throughput(*setting, "cpu", images=4, most=4, threads=2)
    assert found == {1: 10.0, 2: 20.0}


def test_what_takes_too_long_is_left_out(setting, monkeypatch):
    monkeypatch.setattr(contention, "_CHILD", "import time; time.sleep(60)")
    monkeypatch.setattr(contention, "_PATIENCE_S", 0.5)
    assert measure_throughput(*setting, "cpu", images=4, most=2, threads=2) == {}


@pytest.mark.slow
def test_whole_processes_that_train_together_are_timed(setting, monkeypatch):
    monkeypatch.setattr(contention, "_PATIENCE_S", 250.0)
    found = measure_throughput(*setting, "cpu", images=4, most=2, threads=1, measured_s=0.5)
    assert list(found) == [1, 2]
    assert all(rate > 0 for rate in found.values())
