"""Measures the driver's overhead: instant simulated trials with our code and plain Ray Tune.

    python benchmarks/scale.py                      1,000 trials on 64 simulated GPUs, ~10 minutes
    python benchmarks/scale.py --trials 120 --gpus 8

"Ours" is the controller, its ledger, the adapters for Ray Tune, the live view and MLflow in SQLite.
"Plain" is Ray Tune with random search, `reuse_actors=True` and no tracking. Trials take no time, so
the wall time per trial is the overhead of the driver and Ray.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from ray import tune  # noqa: E402

from benchmarks.scaling.pretend import pretend_trial  # noqa: E402
from sweeps.config.loading import load_recipe  # noqa: E402
from sweeps.config.recipe import Recipe  # noqa: E402
from sweeps.driver.live_view import LiveView  # noqa: E402
from sweeps.execution.placement import Placement, available_cores  # noqa: E402
from sweeps.execution.ray_session import ray_up  # noqa: E402
from sweeps.execution.tune_run import run_trials  # noqa: E402
from sweeps.search.controller import SweepController  # noqa: E402
from sweeps.state.ledger import FILE, Ledger, now_s  # noqa: E402
from sweeps.state.storage import Storage  # noqa: E402
from sweeps.tracking.publisher import Publisher  # noqa: E402
from sweeps.tracking.tracker import open_tracking  # noqa: E402

NAME = "scale"


@dataclass
class Measured:
    """The measurements of one arm: one entry per ended trial, in the order of the ends."""

    ends: list[tuple[float, float]] = field(default_factory=list)  # wall s, CPU s of the driver
    memory_mib: list[float] = field(default_factory=list)
    lag_s: list[float] = field(default_factory=list)  # from an epoch's end to its stored point
    drain_s: float = 0.0  # from the last trial's end until its run is closed

    def begin(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def trial_ended(self) -> None:
        wall, cpu = self._start
        self.ends.append((time.perf_counter() - wall, time.process_time() - cpu))
        self.memory_mib.append(psutil.Process().memory_info().rss / 2**20)

    def run_closed(self) -> None:
        self.drain_s = time.perf_counter() - self._start[0] - self.ends[-1][0]


class StopwatchTracker:
    """A tracker that records when its data is stored."""

    def __init__(self, tracker, measured: Measured) -> None:
        self._tracker, self._measured = tracker, measured

    def __getattr__(self, name):
        return getattr(self._tracker, name)

    def log_epoch(self, trial_id, epoch, metrics, at_s) -> None:
        self._tracker.log_epoch(trial_id, epoch, metrics, at_s)
        self._measured.lag_s.append(now_s() - at_s)

    def end_trial(self, trial_id, stop_reason, error_text=None) -> None:
        self._tracker.end_trial(trial_id, stop_reason, error_text)
        self._measured.run_closed()


def the_recipe(trials: int, epochs: int) -> Recipe:
    return load_recipe("quickstart", {"budget.trials": trials, "epochs": epochs})


def the_machine(gpus: int) -> Placement:
    """`gpus` simulated GPUs, with one simulated core each: Ray keeps one worker per core."""
    return Placement(gpus, gpus, 1, 1, gpus, simulated=True)


def run_ours(trials: int, gpus: int, epochs: int, folder: Path, measured: Measured) -> None:
    """Run the sweep `NAME` in `folder`, with its ledger and MLflow's database."""
    recipe = the_recipe(trials, epochs)
    placement = the_machine(gpus)
    storage = Storage(str(folder))
    tracker = open_tracking(f"sqlite:///{folder / 'mlflow.db'}")
    tracker.start_sweep(NAME, storage=storage.root)
    ledger = Ledger(folder / FILE)
    at_once = placement.max_concurrent
    controller = SweepController(recipe, recipe.base.seed, ledger, at_once=at_once)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        view = LiveView(
            NAME,
            controller.progress,
            device="GPU",
            devices_per_trial=1,
            trials_url=tracker.trials_url(),
            console=Console(file=nowhere),
        )

        def watch(event) -> None:
            if event["event"] == "end":
                measured.trial_ended()

        say = lambda text: view({"event": "said", "text": text})  # noqa: E731
        publisher = Publisher(StopwatchTracker(tracker, measured), storage, recipe, say)
        controller.listeners += [publisher, view, watch]
        with ray_up(placement), view:
            measured.begin()
            run_trials(controller, epochs, placement, pretend_trial, starting=available_cores())
            publisher(ledger.append("closed", reason="completed"))
            assert publisher.close(3600)


def run_plain(trials: int, gpus: int, epochs: int, folder: Path, measured: Measured) -> None:
    """The same trials through Ray Tune alone."""
    placement = the_machine(gpus)
    # Start at most as many workers at once as there are cores, as ours does: 64 would never start.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(available_cores())

    class Watch(tune.Callback):
        def on_trial_complete(self, iteration, trials, trial, **info) -> None:
            measured.trial_ended()

    with ray_up(placement):
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(pretend_trial, context=epochs), placement.resources()
            ),
            param_space={"config": {"optimizer": {"lr": tune.loguniform(3e-4, 3e-3)}}},
            tune_config=tune.TuneConfig(
                num_samples=trials, max_concurrent_trials=gpus, reuse_actors=True
            ),
            run_config=tune.RunConfig(storage_path=str(folder), callbacks=[Watch()], verbose=0),
        )
        measured.begin()
        tuner.fit()


ARMS = {"plain": run_plain, "ours": run_ours}


def in_its_own_process(arm: str, options: argparse.Namespace, folder: Path) -> Measured:
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / f"{arm}.json"
    if not result.exists():
        sizes = [f"--{name}={getattr(options, name)}" for name in ("trials", "gpus", "epochs")]
        command = [sys.executable, __file__, *sizes, "--arm", arm, "--keep", str(folder)]
        print(f"running {arm}: {options.trials} trials", file=sys.stderr, flush=True)
        subprocess.run(command, check=True)
    return Measured(**json.loads(result.read_text(encoding="utf-8")))


def ms_per_trial(measured: Measured, which: int, first: int, last: int) -> float:
    """Milliseconds per trial, wall (`which` 0) or CPU (1), from trial `first` + 1 to `last`."""
    start = measured.ends[first - 1][which] if first else 0.0
    return 1e3 * (measured.ends[last - 1][which] - start) / (last - first)


def table(plain: Measured, ours: Measured, trials: int) -> str:
    """The measurements of both arms over `trials` trials side by side, as Markdown."""
    block = min(100, trials // 4)
    spans = {
        f"all {trials}": (0, trials),
        f"first {block}": (0, block),
        f"second {block}": (block, 2 * block),
        f"last {block}": (trials - block, trials),
    }
    rows = []

    def row(what: str, value: Callable[[Measured], float], form: str = ".0f") -> None:
        a, b = value(plain), value(ours)
        rows.append(f"| {what} | {a:{form}} | {b:{form}} | {b / a:.2f} |")

    for which, kind in enumerate(("ms per trial", "ms of the driver's CPU per trial")):
        for what, span in spans.items():
            row(f"{kind}, {what}", lambda m, w=which, s=span: ms_per_trial(m, w, *s))
        before, after = spans[f"second {block}"], spans[f"last {block}"]
        row(
            f"{kind}, last {block} / second {block}",
            lambda m, w=which, b=before, a=after: ms_per_trial(m, w, *a) / ms_per_trial(m, w, *b),
            ".2f",
        )
    row(f"driver's memory after {block} trials, MiB", lambda m: m.memory_mib[block - 1])
    row(f"driver's memory after {trials} trials, MiB", lambda m: m.memory_mib[trials - 1])
    lag = sorted(ours.lag_s)
    rows.append(f"| MLflow lag, median, s | | {lag[len(lag) // 2]:.2f} | |")
    rows.append(f"| MLflow lag, longest, s | | {lag[-1]:.2f} | |")
    rows.append(f"| last trial's end to MLflow being up to date, s | | {ours.drain_s:.2f} | |")
    return "\n".join(["| | plain Ray Tune | ours | ours / plain |", "|---|---|---|---|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument(
        "--keep", type=Path, help="keep all files here; an arm with results there is not run"
    )
    parser.add_argument("--arm", choices=ARMS, help="run one arm; its results go to --keep")
    options = parser.parse_args()
    if options.arm:
        measured = Measured()
        try:
            sizes = (options.trials, options.gpus, options.epochs)
            ARMS[options.arm](*sizes, options.keep, measured)
        finally:  # also for an arm that was interrupted
            (options.keep / f"{options.arm}.json").write_text(json.dumps(asdict(measured)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        arms = {arm: in_its_own_process(arm, options, folder / arm) for arm in ARMS}
        trials = min(len(measured.ends) for measured in arms.values())
        print(table(**arms, trials=trials))


if __name__ == "__main__":
    main()
