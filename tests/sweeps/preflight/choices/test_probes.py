"""Processes that train side by side, and the steps that they time."""

from __future__ import annotations

import signal

import pytest
import torch

from sweeps.preflight.choices.probes import ProbeFailedError, ProbeLostError, Probes
from sweeps.preflight.choices.stepper import Stepper
from sweeps.preflight.step_cost import Size
from tests.support.data_folders import write_folder_dataset
from unetexp.compute.settings import ComputeSettings
from unetexp.data import Folder, open_dataset
from unetexp.training.config import decode_config

CONTIGUOUS, LAST = ComputeSettings("fp32", "contiguous"), ComputeSettings("fp32", "channels_last")
SMALL = Size(32, 2)
CONFIG = {
    "encoder": {"name": "resnet18", "weights": "none"},
    "augment": {"crop_px": 32},
    "ema_decay": 0.9,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_folder_dataset(root, splits={"train": 4, "val": 2}, size=(40, 48), classes=3)
    return open_dataset(Folder(root=str(root)))


@pytest.fixture(scope="module")
def probes(data):
    with Probes(2, {"OMP_NUM_THREADS": "1", "PYTHONPATH": "."}) as probes:
        yield probes


class TestStepper:
    def test_one_model_takes_steps_under_every_setting(self, data):
        with Stepper(decode_config(CONFIG), data, torch.device("cpu")) as stepper:
            for settings in (CONTIGUOUS, LAST, ComputeSettings("bf16", "contiguous"), LAST):
                assert 0 < stepper.seconds(settings, SMALL) < 60
            state = stepper._state
            weights = [part for part in state.model.parameters() if part.ndim == 4]
            moments = [state.optimizer.state[part]["exp_avg"] for part in weights]
            for part in (*weights, *moments):
                assert part.is_contiguous(memory_format=torch.channels_last)

    def test_nothing_is_learnt_meanwhile(self, data):
        with Stepper(decode_config(CONFIG), data, torch.device("cpu")) as stepper:
            before = [part.clone() for part in stepper._state.model.parameters()]
            stepper.seconds(CONTIGUOUS, SMALL)
            for old, new in zip(before, stepper._state.model.parameters(), strict=True):
                torch.testing.assert_close(old, new, atol=1e-6, rtol=1e-5)


def test_they_start_like_workers_and_time_steps_side_by_side(probes, data):
    assert 0.5 < probes.up_s() < 120
    probes.load(decode_config(CONFIG), data, 2, 120)
    assert 0 < probes.step_s(CONTIGUOUS, SMALL, 1, 1, 120) < 60
    assert 0 < probes.step_s(LAST, SMALL, 2, 1, 120) < 60


def test_a_step_that_fails_is_told_and_the_next_one_runs(probes, data):
    probes.load(decode_config(CONFIG), data, 2, 120)
    with pytest.raises(ProbeFailedError, match="UserError: One image"):
        probes.step_s(CONTIGUOUS, Size(32, 1), 2, 1, 120)
    assert probes.step_s(CONTIGUOUS, SMALL, 2, 1, 120) > 0


def test_one_that_dies_is_told(probes, data):
    probes.load(decode_config(CONFIG), data, 2, 120)
    probes._processes[1].send_signal(signal.SIGKILL)
    with pytest.raises(ProbeLostError):
        probes.step_s(CONTIGUOUS, SMALL, 2, 1, 120)


def test_they_leave_no_files(data, tmp_path):
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": ".", "TMPDIR": str(tmp_path)}
    with Probes(1, environment) as probes:
        probes.load(decode_config(CONFIG), data, 1, 120)
        probes.step_s(CONTIGUOUS, SMALL, 1, 1, 120)
        assert list(tmp_path.glob("unetexp-preflight-*"))
    assert not list(tmp_path.glob("unetexp-preflight-*"))
