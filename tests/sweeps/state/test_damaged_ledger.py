"""A ledger that was damaged on disk: found on reading, and what can be saved is said."""

from __future__ import annotations

import json
import shlex

import pytest

from sweeps.state.ledger import Ledger, truncate
from unetexp.errors import CheckpointError

EVENTS = [
    ("trial", {"trial": "0000", "values": {"optimizer.lr": 1e-05}}),
    ("epoch", {"trial": "0000", "epoch": 1, "metrics": {"val/miou": 0.123456, "x": float("nan")}}),
    ("end", {"trial": "0000", "reason": "completed", "error": "", "epoch": 1}),
    ("trial", {"trial": "0001", "values": {"name": "caffè"}}),
    ("epoch", {"trial": "0001", "epoch": 1, "metrics": {"val/miou": 0.5}}),
    ("end", {"trial": "0001", "reason": "completed", "error": "", "epoch": 1}),
]


@pytest.fixture
def path(tmp_path):
    """The ledger of the sweep `mine`."""
    folder = tmp_path / "mine"
    folder.mkdir()
    ledger = Ledger(folder / "ledger.jsonl")
    for kind, fields in EVENTS:
        ledger.append(kind, **fields)
    ledger.close()
    return ledger.path


def damage(path, number, change):
    """Put `change(line)` in place of the line `number`, from 1."""
    lines = path.read_bytes().split(b"\n")
    lines[number - 1] = change(lines[number - 1])
    path.write_bytes(b"\n".join(lines))


def refusal(path):
    before = path.read_bytes()
    with pytest.raises(CheckpointError) as raised:
        Ledger(path)
    assert path.read_bytes() == before
    return str(raised.value)


def test_events_carry_no_checksum(path):
    ledger = Ledger(path, write=False)
    assert [event["event"] for event in ledger.events] == [kind for kind, _ in EVENTS]
    assert all(
        event.keys() == {"event", "at", *fields}
        for event, (_, fields) in zip(ledger.events, EVENTS, strict=True)
    )
    assert all(isinstance(json.loads(line)["crc"], int) for line in path.read_text().splitlines())


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace(b"0.5", b"0.6"),  # still JSON
        lambda line: line[:20],
        lambda line: line[:5] + b"\xff" + line[6:],
        lambda line: b"\0" * len(line),
        lambda line: b"",
        lambda line: b"[1]",
        lambda line: line + line,
    ],
    ids=["digit", "cut", "not utf-8", "zeros", "empty", "no event", "twice"],
)
def test_damage_in_the_middle_is_one_message(path, change):
    damage(path, 5, change)
    said = refusal(path)
    assert f"{path}, line 5" in said
    assert "4 events" in said and "1 of 2 trials" in said
    assert "--resume mine --truncate-ledger" in said


def test_lines_of_older_code_are_read(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines[:3]:
        del line["crc"]
    old = "".join(json.dumps(line) + "\n" for line in lines[:3])
    path.write_text(old)
    ledger = Ledger(path)
    ledger.append("closed", reason="completed")
    ledger.close()
    assert [event["event"] for event in Ledger(path).events] == ["trial", "epoch", "end", "closed"]
    damage(path, 2, lambda line: line[:-1])
    assert "line 2" in refusal(path)


def test_truncating_keeps_what_is_sound_and_a_copy_of_the_whole(path):
    damage(path, 5, lambda line: line.replace(b"0.5", b"0.6"))
    whole = path.read_bytes()
    copy = truncate(path)
    assert copy.read_bytes() == whole and copy.parent == path.parent
    assert len(Ledger(path).events) == 4


def test_a_sound_ledger_is_not_truncated(path):
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="not damaged"):
        truncate(path)
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1


def test_the_command_is_one_that_a_shell_takes(path):
    damage(path, 2, lambda line: line[:-3])
    words = shlex.split(refusal(path).rpartition("\n")[2])
    assert words[1].endswith("run.py") and words[2:] == ["--resume", "mine", "--truncate-ledger"]
