"""`sweeps/run.py` under a clock that can be made to jump, with checkpoints every other second.

python benchmarks/shaken.py CLOCK ARGUMENTS: the file CLOCK holds the seconds that the driver's
time of day is off.
"""

from __future__ import annotations

import functools
import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this checkout, not this folder

CHECKPOINT_EVERY_S = 1.5


def shift_clock(file: Path) -> None:
    """Have `time.time` and `time.time_ns` follow what is written in the file."""
    right_s, right_ns = time.time, time.time_ns

    def off_s() -> float:
        return float(file.read_text(encoding="utf-8") or 0)

    time.time = lambda: right_s() + off_s()
    time.time_ns = lambda: right_ns() + int(off_s() * 1e9)


def main() -> None:
    shift_clock(Path(sys.argv.pop(1)))
    import sweeps.sweep
    from sweeps.command import app

    plan = functools.partial(sweeps.sweep.TrialPlan, checkpoint_every_s=CHECKPOINT_EVERY_S)
    sweeps.sweep.TrialPlan = plan
    app()


if __name__ == "__main__":
    main()
