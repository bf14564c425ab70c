"""A whole job at equal device time: sweep and final training, a plain loop, the tutorial's script.

    python benchmarks/whole_job.py measure --set mni152 --minutes 30 --out FILE
    python benchmarks/whole_job.py measure --set ROOT --minutes 30 --out FILE      on a folder
    python benchmarks/whole_job.py tables --out FILE           what FILE holds, as tables

Every arm gets the same wall time on all devices of this machine, the same splits and the same
initial weights of the encoder; each picks by validation, and the test split compares. FILE has one
JSON line a run; runs that it holds are not repeated. The set needs a test split: `learning.py cut`
makes a small one of a large one. The tutorial's arm needs segmentation_models_pytorch (pip install
-e '.[bench]').
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from benchmarks.curves.runs import SIDE_PX, arguments, records  # noqa: E402
from benchmarks.jobs.job import Clock, Job, Outcome  # noqa: E402
from benchmarks.jobs.ours import sweep_and_final  # noqa: E402
from benchmarks.jobs.plain import plain_defaults  # noqa: E402
from benchmarks.jobs.tutorial import tutorial  # noqa: E402
from benchmarks.peers.unets import HOW_TO_INSTALL, SMP, smp_version  # noqa: E402
from unetexp.data import open_dataset  # noqa: E402
from unetexp.errors import DataError  # noqa: E402

OURS, TUTORIAL = "sweep + final training", "tutorial: Tune, Optuna, MLflow, smp"
ARMS: dict[str, Callable[[Job, Clock], Outcome]] = {
    OURS: sweep_and_final,
    "plain loop, defaults": plain_defaults,
    TUTORIAL: tutorial,
}
PLACE = ("set", "minutes", "crop_px", "encoder", "weights", "epochs")


def measure(asked: argparse.Namespace) -> None:
    """Do the runs that the file does not hold."""
    place = {name: getattr(asked, name) for name in PLACE}
    done = {(*(r[name] for name in PLACE), r["arm"], r["seed"]) for r in records(asked.out)}
    for seed, (arm, run) in itertools.product(range(asked.seeds), ARMS.items()):
        if (*place.values(), arm, seed) in done or (asked.arms and arm not in asked.arms):
            continue
        if arm == TUTORIAL and smp_version() is None:
            print(f"{arm}: left out, {SMP} is not installed ({HOW_TO_INSTALL})")
            continue
        with tempfile.TemporaryDirectory(prefix="whole-job-") as folder:
            outcome = timed(run, job_of(asked, seed, Path(folder)))
        keep(asked.out, {**place, "arm": arm, "seed": seed, **vars(outcome)})


def job_of(asked: argparse.Namespace, seed: int, folder: Path) -> Job:
    """The job of a run; its data is decoded before the time starts."""
    encoder = {"kind": asked.kind, "name": asked.encoder, "weights": asked.weights}
    seconds = 60 * asked.minutes
    job = Job(asked.set, seconds, asked.crop_px, encoder, seed, folder, asked.epochs)
    data = open_dataset(job.defaults.data)
    if "test" not in data.splits:
        raise DataError(
            f"--set {asked.set}: this set has no test split, by which the arms are compared."
        )
    return job


def timed(run: Callable[[Job, Clock], Outcome], job: Job) -> Outcome:
    """The outcome with the seconds that it took."""
    clock = Clock(job.seconds)
    outcome = run(job, clock)
    return Outcome(outcome.test_miou, outcome.val_miou, outcome.how, clock.spent)


def keep(path: Path, record: dict[str, Any]) -> None:
    """Add a run to the file and print it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    print(
        f"{record['arm']}, seed {record['seed']}: test mIoU {record['test_miou']:.4f}, val "
        f"{record['val_miou']:.4f}, {record['seconds'] / 60:.1f} min; {record['how']}",
        flush=True,
    )


def tables(path: Path) -> None:
    """Print a table for each set, time and encoder of the file."""
    found = records(path)
    for place in dict.fromkeys(tuple(r[name] for name in PLACE) for r in found):
        of_place = [r for r in found if tuple(r[name] for name in PLACE) == place]
        told = dict(zip(PLACE, place, strict=True))
        print(
            f"\n{Path(told['set']).name}, {told['minutes']:g} minutes, crops of "
            f"{told['crop_px']} px, {told['encoder']} ({told['weights']})\n"
        )
        print("| arm | seeds | test mIoU, median (each) | val/miou, median | minutes, most |")
        print("|---|---|---|---|---|")
        for arm in dict.fromkeys(r["arm"] for r in of_place):
            print(row(arm, [r for r in of_place if r["arm"] == arm]))


def row(arm: str, runs: list[dict[str, Any]]) -> str:
    """An arm's line."""
    test = [r["test_miou"] for r in runs]
    each = ", ".join(f"{value:.3f}" for value in test)
    val = statistics.median(r["val_miou"] for r in runs)
    most = max(r["seconds"] for r in runs) / 60
    return (
        f"| {arm} | {len(runs)} | {statistics.median(test):.4f} ({each}) | {val:.4f} | {most:.1f} |"
    )


def main() -> None:
    parser = arguments(__doc__, ["measure", "tables"])
    parser.add_argument("--minutes", type=float, default=30.0, help="of every run of an arm")
    parser.add_argument("--crop-px", type=int, default=SIDE_PX, help="side of a training crop")
    parser.add_argument("--kind", default="timm", help="the encoder's family: timm or resnet")
    parser.add_argument("--encoder", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", default="packaged", help="of the encoder, for all arms")
    parser.set_defaults(epochs=None)
    asked = parser.parse_args()
    if asked.what == "tables":
        tables(asked.out)
    else:
        measure(asked)


if __name__ == "__main__":
    main()
