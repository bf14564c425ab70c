"""Recording of learning curves: even coverage, resumption after a kill, the table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.curves import record as record_script
from benchmarks.curves.curve_table import curves_of, joined, read_table, write_table
from benchmarks.curves.plan import drawn, recipe_of, runs
from benchmarks.curves.runs import append, records
from tests.support.data_folders import write_folder_dataset
from unetexp.errors import UserError

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "benchmarks/curves/record.py"


def record(config, seed, values, scores=(0.5, 0.6), name="drawn"):
    history = [
        {"val/miou": score, "cpu_s": 2.0 * n, "wall_s": 3.0 * n}
        for n, score in enumerate(scores, start=1)
    ]
    return {
        "set": name,
        "config": config,
        "seed": seed,
        "values": values,
        "history": history,
        "space": {"optimizer.lr": {}},
        "base": {},
        "epochs": 2,
        "command": "c",
        "machine": "m",
        "versions": {"torch": "1"},
        "at": f"2026-01-0{config + 1}",
    }


def test_the_configurations_cover_the_space_evenly():
    recipe = recipe_of("mni152", {})
    points = drawn(recipe, 64)
    for path in ("encoder.kind", "decoder.upsampling", "loss.kind"):
        counts = Counter(point[path] for point in points)
        assert set(counts.values()) == {64 // len(recipe.space[path].values)}
    rates = np.log10([point["optimizer.lr"] for point in points])
    assert np.histogram(rates, bins=8, range=(-4, -2))[0].tolist() == [8] * 8
    assert all(("loss.gamma" in p) == (p["loss.kind"] == "focal") for p in points)
    assert drawn(recipe, 10) == points[:10]  # a longer table begins with the same runs


def test_the_sets_take_turns_and_each_eighth_configuration_is_repeated():
    planned = list(runs(["mni152", "some/folder"], recipe_of("mni152", {}), 9, 3))
    assert [run.key for run in planned[:4]] == [
        *[("mni152", 0, 0), ("folder", 0, 0), ("mni152", 0, 1), ("folder", 0, 1)]
    ]
    assert Counter(run.config for run in planned) == {0: 6, 8: 6, **dict.fromkeys(range(1, 8), 2)}


def test_a_line_that_was_cut_short_is_replaced(tmp_path):
    file = tmp_path / "runs.jsonl"
    append(file, {"a": 1})
    with file.open("a") as opened:
        opened.write('{"b": ')
    assert records(file) == [{"a": 1}]
    append(file, {"c": 3})
    assert records(file) == [{"a": 1}, {"c": 3}]


def test_a_table_keeps_values_metrics_seconds_and_origin(tmp_path, capsys):
    given = [
        record(0, 0, {"optimizer.lr": 1e-3, "loss.kind": "focal", "loss.gamma": 2.0}),
        record(1, 0, {"optimizer.lr": 1e-4, "loss.kind": "dice_ce"}, scores=(0.2, 0.3)),
    ]
    write_table(curves_of(given), tmp_path / "t.parquet")
    curves = read_table(tmp_path / "t.parquet")
    rows = curves.rows
    assert rows["val/miou"].tolist() == [0.5, 0.6, 0.2, 0.3]
    assert rows["cpu_s"].tolist() == [2.0] * 4  # of each epoch, not since the start
    assert rows["epoch"].tolist() == [1, 2, 1, 2]
    assert rows["loss.gamma"].isna().tolist() == [False, False, True, True]
    assert curves.origin == curves_of(given).origin
    assert curves.origin["first"] == "2026-01-01"
    assert curves.origin["last"] == "2026-01-02"
    assert "2 runs of 2 configurations" in capsys.readouterr().out


def test_a_table_grows(tmp_path):
    first, second = record(0, 0, {"optimizer.lr": 1e-3}), record(1, 0, {"optimizer.lr": 1e-4})
    grown = joined(curves_of([first]), curves_of([second, first]))
    whole = curves_of([first, second])
    pd.testing.assert_frame_equal(grown.rows, whole.rows)
    assert grown.origin == whole.origin
    with pytest.raises(UserError, match="another experiment, by its epochs"):
        joined(curves_of([first]), curves_of([{**second, "epochs": 3}]))


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such table"):
        read_table(tmp_path / "missing.parquet")
    with pytest.raises(UserError, match="no curves of 'other'"):
        curves_of([record(0, 0, {"optimizer.lr": 1e-3})]).of_set("other")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_recording_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    write_folder_dataset(tmp_path / "drawn", {"train": 6, "val": 2}, size=(32, 32))
    file = tmp_path / "curves.jsonl"
    sizes = ["--configs", "2", "--seeds", "1", "--epochs", "2", "--crop-px", "32"]
    asked = ["run", "--sets", str(tmp_path / "drawn"), *sizes, "--out", str(file)]
    first = subprocess.Popen([sys.executable, str(SCRIPT), *asked], cwd=tmp_path)
    try:
        while not records(file) and first.poll() is None:
            time.sleep(0.05)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    before = file.read_bytes()
    assert len(records(file)) == 1

    monkeypatch.setattr(os, "nice", lambda _: 10)  # this process keeps its priority
    call(monkeypatch, *asked)
    whole = records(file)
    assert file.read_bytes().startswith(before)
    assert [(r["set"], r["config"], r["seed"]) for r in whole] == [("drawn", 0, 0), ("drawn", 1, 0)]
    assert all(len(r["history"]) == 2 for r in whole)
    assert str(tmp_path) not in json.dumps(whole)

    call(monkeypatch, *asked)
    assert "2 runs are done" in capsys.readouterr().out
    assert len(records(file)) == 2
    with pytest.raises(SystemExit, match="of 2 epochs"):
        call(monkeypatch, *asked, "--epochs", "3")

    other, table = tmp_path / "other.jsonl", tmp_path / "curves.parquet"
    call(monkeypatch, *asked[:-1], str(other), "--share", "2/2")
    assert [(r["config"], r["seed"]) for r in records(other)] == [(1, 0)]
    call(monkeypatch, "table", "--out", str(file), str(other), "--to", str(table))
    assert len(read_table(table).rows) == 4  # a run that both files hold is there once
    capsys.readouterr()
    call(monkeypatch, *asked[:-1], str(tmp_path / "no.jsonl"), "--known", str(table))
    assert "2 runs are done, 0 are to do" in capsys.readouterr().out


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["record.py", *words])
    record_script.main()
