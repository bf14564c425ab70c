"""The quick form of the check, at a sweep's start."""

import itertools
import shutil
import types

from tests.support.textured import write_textured
from unetexp.data import Folder, open_dataset
from unetexp.data.checks.quick import quick_check


def leaking(root):
    """A set whose val split holds an image of train, by other bytes and another name."""
    for folder in ("images", "masks"):
        path = sorted((root / "train" / folder).iterdir())[0]
        shutil.copy(path, root / "val" / folder / "zzz.png")
    return root


def test_a_leak_is_told_and_the_result_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "cache"))
    data = open_dataset(Folder(root=str(leaking(write_textured(tmp_path / "set")))))

    notes = quick_check(data)

    assert any("duplicates-across-splits" in note for note in notes)
    assert quick_check(data, budget_s=0) == notes  # nothing could be read: it was kept


def test_clean_data_brings_no_note(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "cache"))
    data = open_dataset(Folder(root=str(write_textured(tmp_path / "set"))))

    assert quick_check(data) == ()


def test_it_says_how_many_images_it_looked_at(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "cache"))
    data = open_dataset(Folder(root=str(write_textured(tmp_path / "set"))))

    seconds = itertools.count()  # one for each look at the clock
    clock = types.SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr("unetexp.data.checks.quick.time", clock)

    (note,) = quick_check(data, budget_s=7)

    assert "looked at 7 of 20 images" in note
    assert "unetexp data check" in note


def test_what_does_not_fit_into_the_time_is_looked_at_another_time(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "cache"))
    data = open_dataset(Folder(root=str(leaking(write_textured(tmp_path / "set")))))

    assert quick_check(data, budget_s=0) == ()
    assert quick_check(data) != ()
