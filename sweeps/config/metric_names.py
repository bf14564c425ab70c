"""The metric names that a sweep itself reads and writes; `unetexp.metrics` names all others."""

from __future__ import annotations

OBJECTIVE = "val/miou"  # what a sweep maximises
BEST_OBJECTIVE = f"best/{OBJECTIVE}"  # its best value over a trial's epochs
BEST_EPOCH = "best/epoch"  # the epoch of that value
COST = "cost/device_s"  # seconds of a trial times its GPUs; on the CPU, of its worker
