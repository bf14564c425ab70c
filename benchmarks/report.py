"""Times the report of many synthetic trials: `python benchmarks/report.py [TRIALS ...]`."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from sweeps.report import write_report
from sweeps.tracking.store import open_store
from sweeps.tracking.tracker import Tracker

EPOCHS, CLASSES = 20, 8


def make_sweep(tracker: Tracker, name: str, trials: int) -> None:
    """Write a sweep of synthetic trials, some stopped at epochs 3 and 9."""
    rng = np.random.default_rng(0)
    tracker.start_sweep(name, storage="/nowhere", params={"recipe": "made", "epochs": EPOCHS})
    for number in range(trials):
        trial, last = f"{number:05d}", int(rng.choice([3, 9, EPOCHS], p=[0.6, 0.25, 0.15]))
        params = {
            "epochs": EPOCHS,
            "encoder.freeze": rng.choice(["none", "stem", "stage1", "all"]),
            "decoder.upsampling": rng.choice(["bilinear", "nearest", "pixel_shuffle"]),
            "loss.kind": rng.choice(["dice", "focal", "cross_entropy"]),
            "optimizer.lr": 10 ** rng.uniform(-4, -2),
        }
        tracker.start_trial(trial, f"{name}-{trial}", params)
        top = 0.7 - 0.05 * (params["encoder.freeze"] == "all") + rng.normal(0, 0.03)
        for epoch in range(1, last + 1):
            score = top * (1 - np.exp(-epoch / 4)) + rng.normal(0, 0.01)
            metrics = {"val/miou": score, **{f"val/iou/{c}": score for c in range(CLASSES)}}
            metrics |= {"time/latency_ms": 20 + rng.normal(), "model/parameters": 3e7}
            tracker.log_epoch(trial, epoch, metrics)
        tracker.log_cost(trial, 30.0 * last, time.time())
        tracker.end_trial(trial, "completed" if last == EPOCHS else "asha")
    tracker.end_sweep("completed")


def main(sizes: list[int]) -> None:
    print(f"{'trials':>7} {'seconds':>8} {'CPU s':>7} {'MB':>6}")
    with tempfile.TemporaryDirectory() as place:
        store = open_store(f"sqlite:///{place}/mlflow.db")
        for size in sizes:
            make_sweep(Tracker(store), f"made-{size}", size)
            start, used = time.perf_counter(), time.process_time()
            path = write_report(store, f"made-{size}", Path(place, "report.html"))
            seconds, cpu = time.perf_counter() - start, time.process_time() - used
            print(f"{size:>7} {seconds:>8.1f} {cpu:>7.1f} {path.stat().st_size / 1e6:>6.1f}")


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or [8, 100, 1000])
