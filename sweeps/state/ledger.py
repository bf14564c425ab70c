"""The ledger: an append-only file with one line of JSON per event, in order.

The search, the early stopping and the tracking are rebuilt from it alone: the driver appends a
line and flushes it to disk before anything acts on it. A line that a crash cut short is dropped
when the file is opened again. Each line ends with a checksum of the text before it, which is not
part of the event; lines of older versions have none.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sweeps.text import count, script
from unetexp.errors import CheckpointError

Event = dict[str, Any]

FILE = "ledger.jsonl"
DRIVER_LOCK = "driver.lock"  # beside the ledger, held by the process that writes it
TRUNCATE = "--truncate-ledger"
_STARTED_AT_S = time.time() - time.monotonic()
_CHECKSUM = b', "crc": '  # the last key of a line


def now_s() -> float:
    """Seconds since 1970, by the clock as it was set when this process started.

    A change of the clock while a sweep runs does not affect hours spent and time budgets.
    """
    return _STARTED_AT_S + time.monotonic()


@dataclass(frozen=True)
class LedgerContent:
    """The content of a ledger's file, up to the first damaged line."""

    path: Path
    events: list[Event]
    sound_bytes: int
    damage: str | None  # what is wrong with the line after the events
    lines_after: int  # whole lines after the damaged one

    def describe_damage(self, options: tuple[str, ...] = ()) -> str:
        """The damage, what can be saved, and the command that saves it, with `options` added."""
        line = len(self.events) + 1
        finished, trials = self._trials()
        command = script("run", "--resume", self.path.parent.name, TRUNCATE, *options)
        return (
            f"{self.path}, line {line}: the sweep's ledger is damaged ({self.damage}). The "
            f"{count(line - 1, 'event')} before it can be saved: {finished} of {trials} trials "
            f"have ended in them. {count(self.lines_after, 'line')} after it cannot be used. "
            "Restore the file from a backup, or continue with the events before the damage: the "
            "damaged file is kept beside the ledger, and lost trials run again.\n"
            f"{command}"
        )

    def _trials(self) -> tuple[int, int]:
        """Trials that ended for good, and all trials."""
        proposed = {event["trial"] for event in self.events if event["event"] == "trial"}
        return len(ended_trials(self.events)), len(proposed)


def ended_trials(events: list[Event]) -> set[str]:
    """The trials that ended for good; an interrupted one continues."""
    ends = [event for event in events if event["event"] == "end"]
    return {event["trial"] for event in ends if event["reason"] != "interrupted"}


def read_ledger(path: Path) -> LedgerContent:
    """The content of a ledger's file, which may be damaged or missing."""
    whole = path.read_bytes() if path.exists() else b""
    lines = whole.split(b"\n")[:-1]  # text after the last newline was cut short
    events: list[Event] = []
    sound_bytes, damage = 0, None
    for line in lines:
        try:
            events.append(_decode(line))
        except ValueError as error:
            damage = str(error)
            break
        sound_bytes += len(line) + 1
    after = len(lines) - len(events) - 1 if damage else 0
    return LedgerContent(path, events, sound_bytes, damage, after)


def truncate(path: Path) -> Path:
    """Cut a damaged ledger before its damaged line; returns the path of a copy of the whole file.

    Raises CheckpointError for a ledger that is not damaged.
    """
    content = read_ledger(path)
    if content.damage is None:
        raise CheckpointError(f"{path} is not damaged: leave {TRUNCATE} out.")
    copy = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    shutil.copy2(path, copy)
    _replace(path, copy.read_bytes()[: content.sound_bytes])
    return copy


def rewrite(path: Path, events: list[Event]) -> None:
    """Replace the events of a ledger's file atomically."""
    _replace(path, b"".join(map(_encode, events)))


class Ledger:
    """An append-only list of events in a file; one process at a time writes it."""

    def __init__(self, path: Path, *, write: bool = True) -> None:
        """Read the file, which may be missing; without `write` it is not changed.

        Raises CheckpointError, with what can be saved, where a line is damaged.
        """
        self.path = path
        content = read_ledger(path)
        if content.damage is not None:
            raise CheckpointError(content.describe_damage())
        self.events = content.events
        self._file: BinaryIO | None = None
        if write:
            self._file = path.open("r+b" if path.exists() else "wb")
            self._file.truncate(content.sound_bytes)
            self._file.seek(content.sound_bytes)

    def append(self, event: str, **fields: Any) -> Event:
        """Write an event with its time (`now_s`), flush it to disk and return it."""
        assert self._file is not None
        record: Event = {"event": event, "at": now_s(), **fields}
        self._file.write(_encode(record))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.events.append(record)
        return record

    def of(self, *kinds: str) -> Iterator[Event]:
        """The events of the given kinds, in order."""
        return (event for event in self.events if event["event"] in kinds)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _encode(event: Event) -> bytes:
    """The event's line: its JSON object, with the checksum of the rest as the last key."""
    text = json.dumps(event).encode()
    return text[:-1] + _CHECKSUM + str(zlib.crc32(text)).encode() + b"}\n"


def _decode(line: bytes) -> Event:
    """The event of a line, without its checksum; ValueError says what is wrong with it."""
    body, found, checksum = line.rpartition(_CHECKSUM)
    if found:
        line = body + b"}"
        if checksum != str(zlib.crc32(line)).encode() + b"}":
            raise ValueError("its checksum does not match")
    try:
        event = json.loads(line)
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(event, dict) or "event" not in event:
        raise ValueError("it is not an event")
    return event


def _replace(path: Path, content: bytes) -> None:
    scratch = path.with_name(f".{path.name}.part")
    with scratch.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
