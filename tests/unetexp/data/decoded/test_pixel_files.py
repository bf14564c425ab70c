"""Mapped files of pixels, whose pages are let go now and then."""

import numpy as np
import psutil
import pytest

from unetexp.data.decoded import pixel_files
from unetexp.data.decoded.pixel_files import PixelFile
from unetexp.errors import DataError


def resident():
    return psutil.Process().memory_info().rss


def test_pages_of_a_large_file_do_not_add_up(tmp_path, monkeypatch):
    monkeypatch.setattr(pixel_files, "_MAPPED_BYTES", 2**20)
    part = 2**19
    content = np.random.default_rng(0).integers(0, 256, 200 * part).astype(np.uint8)
    content.tofile(tmp_path / "x")
    file = PixelFile(tmp_path / "x")
    before, peak = resident(), 0
    for number in range(200):
        view = file.between(number * part, (number + 1) * part)
        assert int(view.sum()) == int(content[number * part : (number + 1) * part].sum())
        peak = max(peak, resident() - before)
    assert peak < 75 * part  # of 200
    kept = file.between(0, part)
    file.let_go()
    assert (kept == content[:part]).all()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="missing or damaged"):
        PixelFile(tmp_path / "none").between(0, 1)
