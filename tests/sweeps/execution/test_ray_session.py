"""Ray's own folder where the usual one will not do; a sweep in one: tests/sweeps/driver."""

from __future__ import annotations

import socket
import stat
from contextlib import contextmanager

import pytest

from sweeps.execution import ray_session
from sweeps.execution.placement import Placement
from sweeps.execution.ray_session import ray_up, require_short_folder, short_folder
from unetexp.errors import UserError

LONG = "a-folder-of-a-batch-job-" * 4


@pytest.fixture
def long_folder(tmp_path, monkeypatch):
    folder = tmp_path / LONG
    folder.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_the_usual_folder_is_left_to_ray(monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    with short_folder() as folder:
        assert folder is None


def test_a_long_path_makes_a_short_private_folder_that_goes(long_folder):
    with short_folder() as folder:
        assert len(bytes(folder)) < 40
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "session").mkdir()
    assert not folder.exists()


def test_a_folder_that_is_a_file_is_not_used(tmp_path, monkeypatch):
    (tmp_path / "t").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "t"))
    with short_folder() as folder:
        assert folder is not None


def test_no_short_folder_is_one_message(long_folder, monkeypatch):
    monkeypatch.setattr(ray_session, "short_parents", lambda longest: [])
    with pytest.raises(UserError, match="RAY_TMPDIR=/some/folder"):
        require_short_folder()


def test_loader_workers_hand_over_batches_in_spite_of_a_long_path(long_folder, monkeypatch):
    from tests.support.data_folders import write_folder_dataset
    from unetexp.data import Folder, open_dataset
    from unetexp.training.batches.train_batches import TrainBatches
    from unetexp.training.config import decode_config

    assert socket.AF_UNIX
    root = long_folder.parent / "data"
    write_folder_dataset(root, splits={"train": 4, "val": 2}, size=(40, 48))
    tree = {"data": {"kind": "folder", "root": str(root)}, "augment": {"crop_px": 32}}
    config = decode_config({**tree, "batch_size": 2}, {})
    monkeypatch.setattr("tempfile.tempdir", str(long_folder))
    batches = TrainBatches(open_dataset(Folder(root=str(root)))["train"], config, workers=1)
    assert len(list(batches.epoch(0))) == 2


class TestSharedGpus:
    """With MPS replaced: when it is asked for, and that workers get its environment."""

    @pytest.fixture
    def asked(self, monkeypatch):
        calls = []

        @contextmanager
        def shared(say):
            calls.append("begun")
            yield {"CUDA_MPS_PIPE_DIRECTORY": "/tmp/pipes"}
            calls.append("ended")

        @contextmanager
        def no_ray(placement, folder, environment):
            calls.append(environment)
            yield

        monkeypatch.setattr(ray_session, "gpus_shared", shared)
        monkeypatch.setattr(ray_session, "_own_ray", no_ray)
        return calls

    def test_trials_that_share_a_gpu_do_so_by_mps(self, asked):
        with ray_up(Placement(1, 4, 0.5, 2, 2, simulated=False)):
            assert asked == ["begun", {"CUDA_MPS_PIPE_DIRECTORY": "/tmp/pipes"}]
        assert asked[-1] == "ended"

    @pytest.mark.parametrize(
        ("gpus", "share", "simulated"),
        [(1, 1, False), (4, 2, False), (1, 0.5, True), (0, 0, False)],
    )
    def test_others_do_not_need_it(self, asked, gpus, share, simulated):
        with ray_up(Placement(gpus, 4, share, 2, 2, simulated=simulated)):
            assert asked == [{}]
