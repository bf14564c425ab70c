"""Where trials keep their files, and how a full disk is told from other errors."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from ray.tune.error import TuneError
from safetensors.torch import save_file

from sweeps.state.storage import Storage, is_full_disk

FULL = Path("/dev/full")  # a device that has never any space left

WRITERS = {
    "file": lambda: FULL.write_text("much", encoding="utf-8"),
    "small checkpoint": lambda: torch.save({"a": 1}, FULL),
    "checkpoint": lambda: torch.save({"a": torch.zeros(10**6)}, FULL),
}


@pytest.mark.skipif(not FULL.exists(), reason="Linux only")
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_is_recognised_whoever_writes(write):
    with pytest.raises((OSError, RuntimeError)) as caught:
        write()
    assert is_full_disk(caught.value)


def test_a_full_disk_is_recognised_in_what_ray_makes_of_it():
    assert is_full_disk(OSError(errno.EDQUOT, "anything"))
    assert is_full_disk(TuneError("Traceback ...\nOSError: [Errno 28] No space left on device\n"))


def test_other_errors_are_no_full_disk(tmp_path):
    with pytest.raises(FileNotFoundError) as missing:
        (tmp_path / "no" / "such").write_text("x")
    with pytest.raises(Exception, match="such") as unsaved:
        save_file({"a": torch.zeros(1)}, tmp_path / "no" / "such")
    torch.save({"a": torch.zeros(1000)}, tmp_path / "torn.pt")
    os.truncate(tmp_path / "torn.pt", 2000)
    with pytest.raises(RuntimeError) as torn:
        torch.load(tmp_path / "torn.pt", weights_only=True)
    assert not any(is_full_disk(error.value) for error in (missing, unsaved, torn))


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_files_of_lost_trials_are_set_aside(tmp_path, scheme):
    for trial in ("0000", "0001"):
        (tmp_path / "trials" / trial / "best").mkdir(parents=True)
        (tmp_path / "trials" / trial / "best" / "x").write_text(trial)
    storage = Storage(f"{scheme}{tmp_path}")
    assert storage.set_aside({"0000"}, "lost") == 1
    assert [folder.name for folder in (tmp_path / "trials").iterdir()] == ["0000"]
    assert (tmp_path / "lost" / "0001" / "best" / "x").read_text() == "0001"
    assert storage.set_aside({"0000"}, "again") == 0
