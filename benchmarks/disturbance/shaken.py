"""`sweeps/run.py` under remote control: its clock can be shifted, and it can be paused.

    python benchmarks/disturbance/shaken.py CONTROLS ARGUMENTS

The file CONTROLS holds a `Controls` as JSON and may change at any time.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])  # this checkout, not this folder


@dataclass
class Controls:
    """How a driver is disturbed."""

    hold_at: int | None = None  # number of epochs in the ledger at which the driver pauses
    clock_off_s: float = 0.0  # offset of the driver's time of day
    checkpoint_every_s: float = 1.0

    def write(self, path: Path) -> None:
        scratch = path.with_suffix(".new")
        scratch.write_text(json.dumps(asdict(self)), encoding="utf-8")
        scratch.replace(path)

    @classmethod
    def read(cls, path: Path) -> Controls:
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def shift_clock(path: Path) -> None:
    """Make `time.time` and `time.time_ns` follow the controls."""
    right_s, right_ns = time.time, time.time_ns
    time.time = lambda: right_s() + Controls.read(path).clock_off_s
    time.time_ns = lambda: right_ns() + int(Controls.read(path).clock_off_s * 1e9)


def hold_driver(path: Path) -> None:
    """Make the driver pause after an epoch is in the ledger and before it acts on it."""
    from sweeps.state.ledger import Event, Ledger

    append = Ledger.append

    def append_and_hold(self: Ledger, event: str, **fields) -> Event:
        record = append(self, event, **fields)
        if event == "epoch":
            epochs = len(list(self.of("epoch")))
            while (aim := Controls.read(path).hold_at) is not None and epochs >= aim:
                time.sleep(0.02)
        return record

    Ledger.append = append_and_hold


def main() -> None:
    path = Path(sys.argv.pop(1))
    shift_clock(path)
    hold_driver(path)
    import sweeps.driver.sweep
    from sweeps.cli.run import app

    every_s = Controls.read(path).checkpoint_every_s
    sweeps.driver.sweep.TrialContext = functools.partial(
        sweeps.driver.sweep.TrialContext, checkpoint_every_s=every_s
    )
    app()


if __name__ == "__main__":
    main()
