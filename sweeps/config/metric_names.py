"""The metric names that a sweep itself reads and writes; `unetexp.metrics` names all others."""

from __future__ import annotations

BEST = "best/"  # and a metric's name: its best value over a trial's epochs
BEST_EPOCH = "best/epoch"  # the epoch of that value
COST = "cost/device_s"  # seconds of a trial times its GPUs; on the CPU, of its worker
LATENCY = "time/latency_ms"  # of one image, as served
PARAMETERS = "model/parameters"
