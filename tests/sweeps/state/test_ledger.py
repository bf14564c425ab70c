"""The ledger: what was appended is there, whatever happened to the process."""

from __future__ import annotations

import time

from sweeps.state.ledger import Ledger


def test_events_come_back_in_order(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append("trial", trial="0000", values={"optimizer.lr": 0.1})
    ledger.append("epoch", trial="0000", epoch=1, metrics={"val/miou": float("nan")})
    ledger.close()

    again = Ledger(tmp_path / "ledger.jsonl")

    assert [event["event"] for event in again.events] == ["trial", "epoch"]
    assert again.events[0]["values"] == {"optimizer.lr": 0.1}
    assert next(again.of("epoch"))["epoch"] == 1


def test_a_line_cut_short_is_dropped_and_written_over(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.append("trial", trial="0000", values={})
    ledger.close()
    with path.open("ab") as file:
        file.write(b'{"event": "epoch", "tri')

    again = Ledger(path)
    again.append("end", trial="0000", reason="completed")
    again.close()

    assert [event["event"] for event in Ledger(path).events] == ["trial", "end"]


def test_a_clock_that_is_set_back_leaves_the_times_in_order(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    first = ledger.append("start", trial="0000")
    monkeypatch.setattr(time, "time", lambda: 0.0)
    second = ledger.append("epoch", trial="0000", epoch=1, metrics={})
    assert 0 <= second["at"] - first["at"] < 60
