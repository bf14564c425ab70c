"""The sweep's own record: one line of JSON for everything that happened, in order.

It is the single truth that the search, the early stopping and the tracking are rebuilt from: the
driver appends a line and flushes it to disk before anything acts on it. A line that a crash cut
short is dropped when the file is opened again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

Event = dict[str, Any]

FILE = "ledger.jsonl"
_STARTED_AT_S = time.time() - time.monotonic()


def now_s() -> float:
    """Seconds since 1970, by the clock as it was set when this process started.

    Somebody may set the clock while a sweep runs: hours spent and time budgets stay right.
    """
    return _STARTED_AT_S + time.monotonic()


class Ledger:
    """An append-only list of events in a file that one process at a time writes."""

    def __init__(self, path: Path, *, write: bool = True) -> None:
        """Read what is there; without `write` the file stays as it is."""
        self.path = path
        whole = path.read_bytes() if path.exists() else b""
        whole = whole[: whole.rfind(b"\n") + 1]
        self.events: list[Event] = [json.loads(line) for line in whole.splitlines()]
        self._file: BinaryIO | None = None
        if write:
            self._file = path.open("r+b" if path.exists() else "wb")
            self._file.truncate(len(whole))
            self._file.seek(len(whole))

    def append(self, event: str, **fields: Any) -> Event:
        """Write an event with its time (`now_s`), and have it on disk before returning it."""
        assert self._file is not None
        record: Event = {"event": event, "at": now_s(), **fields}
        self._file.write(json.dumps(record).encode() + b"\n")
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
