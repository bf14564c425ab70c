"""The script: validate, run, resume, tables and picture."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import search
from benchmarks.curves.runs import records
from benchmarks.searching.figures import quartiles
from tests.support.drawn_curves import drawn_curves


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(search, "read_table", lambda path: drawn_curves(configs=24))
    search.landscape_of.cache_clear()
    yield
    search.landscape_of.cache_clear()


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["search.py", *words])
    search.main()


def test_replays_are_kept_resumed_and_shown(table, monkeypatch, tmp_path, capsys):
    asked = ["run", "--seeds", "3", "--devices", "1", "2", "--trainings", "5"]
    arms = ["--arms", "random", "ours: tpe, asha"]
    call(monkeypatch, *asked, *arms)
    file = tmp_path / "replays.jsonl"
    whole = file.read_text()
    assert len(records(file)) == 12
    file.write_text("".join(whole.splitlines(keepends=True)[:7]) + '{"cut')
    call(monkeypatch, *asked, *arms)
    assert file.read_text() == whole
    assert "5 of 12 replays are to do" in capsys.readouterr().out

    call(monkeypatch, "tables")
    shown = capsys.readouterr().out
    assert "drawn, 1 device\n" in shown
    assert "drawn, 2 devices\n" in shown
    assert shown.count("| random | 3 |") == shown.count("| ours: tpe, asha | 3 |") == 2
    call(monkeypatch, "plot", "--to", "regret.png")
    assert (tmp_path / "regret.png").stat().st_size > 10_000
    for record in map(json.loads, whole.splitlines()):
        assert len(record["regret"]) == len(record["times"])


def test_validation_ranks_the_surrogates(table, monkeypatch, capsys):
    call(monkeypatch, "validate")
    shown = capsys.readouterr().out
    assert "24 configurations, 24 repeated runs" in shown
    found = {
        line.split("|")[1].strip(): float(line.split("|")[2])
        for line in shown.splitlines()
        if line.startswith("|") and "0." in line
    }
    assert set(found) == {"forest", "neighbours", "nearest"}
    assert found["forest"] > 0.3


def test_an_unknown_arm_is_refused(table, monkeypatch):
    with pytest.raises(SystemExit, match="hyperbnd"):
        call(monkeypatch, "run", "--arms", "hyperbnd")


def test_quartiles_of_replays_that_never_got_close():
    assert quartiles([1.0, 2.0, float("inf"), float("inf")]) == (1.0, 2.0, float("inf"))
