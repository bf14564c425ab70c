"""Runs the trials of a planned sweep with Ray Tune; Ray is running already."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.stopper import CombinedStopper, Stopper

from sweeps.execution.distributed_trial import run_parallel_trial
from sweeps.execution.placement import Placement
from sweeps.execution.trial import run_trial
from sweeps.execution.tune_adapters import (
    ControllerCallback,
    ControllerScheduler,
    ControllerSearcher,
    ControllerStopper,
)
from sweeps.execution.worker_queue import WorkerQueue
from sweeps.search.controller import SweepController
from sweeps.state.storage import Storage, remove_files
from unetexp.system.stop_signals import raise_if_stopped

MAX_CRASHES = 3
_A_FEW = 8


def run_trials(
    controller: SweepController,
    context: Any,
    placement: Placement,
    trial: Callable[..., None] | None = None,
    shared: Storage | None = None,
    starting: int | None = None,
) -> None:
    """Run trials until the controller has no more to propose; Ray must be running.

    `trial(config, context=context)` replaces the real one, whose context is a `TrialContext`.
    `shared` is a storage that all nodes see; without it Ray's files stay on this machine.
    At most `starting` workers start concurrently, by default `starting_at_once`.
    """
    trial = trial or (run_parallel_trial if placement.ranks > 1 else run_trial)
    worker_queue = WorkerQueue(starting or starting_at_once(placement))
    trainable = tune.with_resources(
        tune.with_parameters(trial, context=context), placement.resources()
    )
    callback = ControllerCallback(controller, worker_queue, placement.gpus_per_trial or 1)
    with _scratch(shared) as scratch:
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                num_samples=-1,  # the controller decides when there are no more
                search_alg=ControllerSearcher(controller, worker_queue),
                scheduler=ControllerScheduler(controller, worker_queue),
                max_concurrent_trials=placement.max_concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=scratch,
                stop=CombinedStopper(_SignalStopper(), ControllerStopper(controller, worker_queue)),
                failure_config=tune.FailureConfig(max_failures=MAX_CRASHES),
                callbacks=[callback],
                verbose=0,
            ),
        )
        tuner.fit()
    callback.settle_deaths(at_once=True)


class _SignalStopper(Stopper):  # type: ignore[misc]  # Ray's classes carry no types
    """Ends the trials after a signal whose exception could not be raised when it arrived."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        raise_if_stopped()
        return False


def starting_at_once(placement: Placement) -> int:
    """Workers that may start concurrently: many more than cores only delay each other.

    Ray would start all: 64 on 2 cores had not finished one instant trial after five minutes. A few
    are always allowed, so that short trials also run concurrently from the beginning.
    """
    return max(1, min(placement.max_concurrent, max(int(placement.cpus), _A_FEW)))


@contextmanager
def _scratch(shared: Storage | None) -> Iterator[str]:
    """A temporary folder for Ray Tune's files; on a cluster all nodes must see it."""
    if shared is None:
        with tempfile.TemporaryDirectory(prefix="unetexp-tune-") as folder:
            yield folder
        return
    place = f"{shared.root}/ray"
    try:
        yield place
    finally:
        remove_files(place)


def private_folder(path: Path) -> Path:
    """The folder, created if missing, with access for its owner only."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path
