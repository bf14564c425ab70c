"""Promote a model: `python sweeps/promote.py`. `--help` shows the options."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this checkout, not this folder

try:
    from sweeps.cli.promote import app
except KeyboardInterrupt:  # this takes seconds
    sys.exit(130)

if __name__ == "__main__":
    app()
