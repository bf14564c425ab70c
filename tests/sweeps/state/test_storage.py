"""Where trials keep their files, and how a full disk is told from other errors."""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from pyarrow import fs
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


class TestMirror:
    """A trial's folder and its copy behind a URI."""

    @pytest.fixture
    def storage(self, tmp_path):
        return Storage(f"file://{tmp_path / 'far'}", scratch=str(tmp_path))

    @pytest.mark.parametrize("seed", range(8))
    def test_the_copy_equals_the_folder_after_any_changes(self, storage, tmp_path, seed):
        rng = random.Random(seed)
        for _ in range(3):  # each time another worker
            with storage.trial_folder("0000") as folder:
                assert content(folder.path) == content(tmp_path / "far/trials/0000")
                for _ in range(10):
                    for _ in range(rng.randrange(6)):
                        change(folder.path, rng)
                    folder.publish()
                    assert content(folder.path) == content(tmp_path / "far/trials/0000")
                change(folder.path, rng)
                expected = content(folder.path)
            assert content(tmp_path / "far/trials/0000") == expected
        assert content(storage.local_copy("0000")) == expected

    def test_only_what_has_changed_is_sent(self, storage, tmp_path, monkeypatch):
        with storage.trial_folder("0000") as folder:
            (folder.path / "best").mkdir()
            for name in ("model", "config"):
                (folder.path / "best" / name).write_text("1")
            folder.publish()
            sent = []
            copy = fs.copy_files
            monkeypatch.setattr(
                fs, "copy_files", lambda *a, **k: (sent.append(Path(a[0]).name), copy(*a, **k))
            )
            folder.publish()
            assert not sent
            (folder.path / "best" / "config").write_text("2, longer")
            folder.publish()
            assert sent == ["config"]

    def test_a_removed_checkpoint_is_no_longer_resumed_from(self, storage):
        with storage.trial_folder("0000") as folder:
            for epoch in (1, 2, 3):
                (folder.path / f"epoch-{epoch:05d}").mkdir()
                (folder.path / f"epoch-{epoch:05d}" / "state.pt").write_text("x")
        assert storage.checkpoint_epoch("0000") == 3
        with storage.trial_folder("0000") as folder:
            shutil.rmtree(folder.path / "epoch-00003")
        assert storage.checkpoint_epoch("0000") == 2

    def test_what_is_being_written_is_not_sent(self, storage, tmp_path):
        with storage.trial_folder("0000") as folder:
            (folder.path / ".new-best").mkdir()
            (folder.path / ".new-best" / "model").write_text("half")
        assert content(tmp_path / "far/trials/0000") == {}


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_one_file_of_a_trial_is_removed(tmp_path, scheme):
    best = tmp_path / "trials" / "0000" / "best"
    best.mkdir(parents=True)
    for name in ("model", "config"):
        (best / name).write_text("x")
    storage = Storage(f"{scheme}{tmp_path}")
    for trial in ("0000", "0000", "0001"):  # also what is not there
        storage.remove_file(trial, "best/model")
    assert [path.name for path in best.iterdir()] == ["config"]


def change(root, rng):
    """Create, write, replace or remove something below `root`."""
    names = ["a", "b", "c d"]
    path = root.joinpath(*rng.choices(names, k=rng.randrange(1, 4)))
    if rng.random() < 0.35:
        remove(path)
        return
    for parent in path.relative_to(root).parents:
        if (root / parent).is_file():
            (root / parent).unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    if rng.random() < 0.3:
        remove(path)
        path.mkdir()
        return
    if path.is_dir():
        shutil.rmtree(path)
    path.write_bytes(rng.randbytes(rng.randrange(2000)))


def remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()


def content(root):
    """Path -> bytes of each file below `root`, None of each folder."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }
