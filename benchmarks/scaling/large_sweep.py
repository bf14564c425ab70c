"""What a sweep of 10,000 trials on 1,000 devices costs its driver, on recorded learning curves.

    python benchmarks/scaling/large_sweep.py                              10,000 trials, 20 minutes
    python benchmarks/scaling/large_sweep.py --trials 500 --devices 50 \
        --tracking-uri http://127.0.0.1:5000                              with an MLflow server

Trials run on virtual devices by a virtual clock (`benchmarks/search.py`); the conductor, the ledger
on disk, the progress and, with --tracking-uri, the publisher to MLflow are those of real sweeps.
What is printed is real: CPU and memory of this process, bytes of the ledger, seconds until a driver
that starts again has read it.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from benchmarks.curves.curve_table import TABLE, read_table  # noqa: E402
from benchmarks.searching.landscape import Landscape  # noqa: E402
from benchmarks.searching.replay import MemoryLedger, replay  # noqa: E402
from sweeps.config.recipe import Recipe  # noqa: E402
from sweeps.search.controller import SweepController  # noqa: E402
from sweeps.state.ledger import FILE, Event, Ledger, now_s  # noqa: E402
from sweeps.state.storage import Storage  # noqa: E402
from sweeps.tracking.publisher import Publisher  # noqa: E402
from sweeps.tracking.tracker import open_tracking  # noqa: E402
from unetexp.errors import UserError  # noqa: E402

BLOCKS = 10  # lines of the table
_PATIENCE_S = 86_400.0


class FileLedger(MemoryLedger):
    """The ledger on disk, with the times of a virtual clock."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.file = Ledger(path)

    def append(self, event: str, **fields: Any) -> Event:
        self.file.append(event, **fields)
        return super().append(event, **fields)


@dataclass(frozen=True)
class Spent:
    """The driver's state when a number of trials had ended."""

    trials: int
    events: int
    cpu_s: float
    memory_mib: float
    ledger_mib: float


class Meter:
    """Looks at the driver each time that a block of trials has ended."""

    def __init__(self, trials: int, ledger: FileLedger) -> None:
        self._block, self._ledger = math.ceil(trials / BLOCKS), ledger
        self.ended = 0
        self.seen = [self._now()]

    def __call__(self, event: Event) -> None:
        if event["event"] != "end":
            return
        self.ended += 1
        if self.ended % self._block == 0:
            self.seen.append(self._now())

    def _now(self) -> Spent:
        size = self._ledger.file.path.stat().st_size / 2**20
        memory = psutil.Process().memory_info().rss / 2**20
        return Spent(self.ended, len(self._ledger.events), time.process_time(), memory, size)

    def table(self) -> str:
        """A line for each block of trials."""
        lines = [
            "| trials ended | CPU ms a trial | and an event | memory, MiB | ledger, KiB a trial |",
            "|---|---|---|---|---|",
        ]
        for before, after in zip(self.seen, self.seen[1:], strict=False):
            trials, events = after.trials - before.trials, after.events - before.events
            cpu_ms = 1e3 * (after.cpu_s - before.cpu_s)
            kib = 1024 * (after.ledger_mib - before.ledger_mib) / trials
            lines.append(
                f"| {after.trials} | {cpu_ms / trials:.1f} | {cpu_ms / events:.2f} | "
                f"{after.memory_mib:.0f} | {kib:.1f} |"
            )
        return "\n".join(lines)


def run(asked: argparse.Namespace, folder: Path) -> None:
    """Replay the sweep and print what it cost."""
    curves = read_table(asked.table)
    landscape = Landscape(curves, asked.set or curves.sets[0])
    budget = landscape.recipe.budget.model_copy(update={"trials": asked.trials})
    recipe = landscape.recipe.model_copy(update={"budget": budget})
    ledger = FileLedger(folder / FILE)
    publisher, finish = published(asked.tracking_uri, recipe, folder)
    meter = Meter(asked.trials, ledger)
    controller = SweepController(recipe, 0, ledger, [*publisher, meter], at_once=asked.devices)
    started = time.perf_counter()
    found = replay(controller, landscape, asked.devices, math.inf, 0)
    wall_s = time.perf_counter() - started
    print(
        f"\n{found.trials} trials, {found.epochs} epochs, {found.full} with the full budget on "
        f"{asked.devices} devices: {ledger.now_s / 3600:.1f} hours by the recorded seconds, "
        f"replayed in {wall_s:.0f} s\n\n{meter.table()}\n"
    )
    finish(len(ledger.events), ledger.now_s)
    again = time.process_time()
    read = Ledger(folder / FILE, write=False)
    SweepController(recipe, 0, read, at_once=asked.devices)
    print(f"A driver that starts again has read it after {time.process_time() - again:.0f} CPU s.")


def published(
    uri: str | None, recipe: Recipe, folder: Path
) -> tuple[list[Publisher], Callable[[int, float], None]]:
    """A publisher to MLflow as a listener, and what waits for it and says how far it was behind."""
    if uri is None:
        return [], lambda *_: None
    tracker = open_tracking(uri)
    tracker.start_sweep(f"large-{os.getpid()}", storage=str(folder))
    publisher = Publisher(tracker, Storage(str(folder)), recipe, print)
    started = now_s()

    def finish(events: int, virtual_s: float) -> None:
        publisher({"event": "closed", "at": now_s(), "reason": "completed"})
        publisher.close(_PATIENCE_S)
        pace = events / (now_s() - started)
        print(
            f"MLflow took {pace:.0f} events a second; the sweep makes {events / virtual_s:.0f} a "
            "second by the recorded seconds of its epochs."
        )

    return [publisher], finish


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--set", help="of the table; default: its first")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--devices", type=int, default=1_000)
    parser.add_argument("--tracking-uri", help="an MLflow server or database; default: no tracking")
    asked = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            run(asked, Path(scratch))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
