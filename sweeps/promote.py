"""Promote a model: `python sweeps/promote.py`. `--help` shows the options."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this checkout, not this folder

if __name__ == "__main__":
    from unetexp.system.stop_signals import begin_process

    begin_process()  # the imports below take seconds

from sweeps.cli.promote import app  # noqa: E402

if __name__ == "__main__":
    app()
