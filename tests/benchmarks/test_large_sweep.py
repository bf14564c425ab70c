"""The cost of a large sweep's driver, on curves from a formula."""

from __future__ import annotations

import sys

import pytest

from benchmarks.curves.curve_table import write_table
from benchmarks.scaling import large_sweep
from tests.support.drawn_curves import drawn_curves


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "curves.parquet"
    write_table(drawn_curves(configs=24), path)
    return path


def printed(monkeypatch, capsys, table, *words):
    asked = ["large_sweep.py", "--table", table, "--trials", 30, "--devices", 8, *words]
    monkeypatch.setattr(sys, "argv", [str(word) for word in asked])
    large_sweep.main()
    return capsys.readouterr().out


def test_each_block_of_trials_has_a_line(table, monkeypatch, capsys):
    text = printed(monkeypatch, capsys, table)
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    assert [int(row[0].removeprefix("| ")) for row in rows] == [3 * n for n in range(1, 11)]
    assert all(float(row[1]) > 0 for row in rows)
    assert text.startswith("\n30 trials, ")
    assert "on 8 devices" in text
    assert "A driver that starts again has read it" in text


def test_with_mlflow_it_says_which_pace_is_kept(table, monkeypatch, capsys, tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert "MLflow took" in printed(monkeypatch, capsys, table, "--tracking-uri", uri)
