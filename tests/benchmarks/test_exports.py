"""The benchmark of exported files, on a tiny model."""

from __future__ import annotations

import pytest

from benchmarks import exports
from benchmarks.exports import CLOCKS, data_of, rows_of, table
from tests.support.exportable import config_on, write_data, write_model
from unetexp.errors import UserError


@pytest.mark.slow
def test_a_row_for_each_file_and_what_was_not_run_says_why(tmp_path, monkeypatch):
    def lacking(target, precision):
        if target == "openvino":
            raise UserError("OpenVINO is not here.\nInstall it.")
        return writer_of(target, precision)

    writer_of = exports.writer_of
    monkeypatch.setattr(exports, "writer_of", lacking)
    folder = write_model(tmp_path / "model", config_on(write_data(tmp_path / "data")))
    formats = ["onnx-fp32", "openvino-fp32"]
    rows = rows_of(folder, formats, data_of(folder, None), 32, 1, 1, CLOCKS["cpu"])
    exported, missing = table(rows).splitlines()[2:]
    assert "| onnx-fp32 |" in exported
    assert "| 100.000% |" in exported
    assert "not run: OpenVINO is not here." in missing
