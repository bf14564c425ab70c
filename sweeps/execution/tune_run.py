"""Runs a planned sweep: Ray comes up, trials run, everything is closed in order."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import tune

from sweeps.execution.cluster import joined, leave
from sweeps.execution.distributed_trial import run_parallel_trial
from sweeps.execution.placement import Placement
from sweeps.execution.ray_security import (
    make_private,
    make_token,
    open_ports,
    port_notice,
    token_file,
    use_tokens,
)
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
from sweeps.tracking.store import PROJECT_ROOT

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the terminal is ours
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: the runs are closed first
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # the ledger is the record; Ray's own is not read
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "auto",  # the staging holds back what would start too early
}
MAX_CRASHES = 3
_A_FEW = 8


def run_trials(
    controller: SweepController,
    plan: Any,
    placement: Placement,
    trial: Callable[..., None] | None = None,
    shared: Storage | None = None,
    starting: int | None = None,
) -> None:
    """Run trials until the conductor has no more to propose; Ray must be up.

    `trial(config, plan=plan)` stands in for the real one, whose plan is a `TrialPlan`. `shared` is
    a storage that all nodes see; without it Ray's files stay on this machine. `starting` workers
    may be starting side by side, by default `starting_at_once`.
    """
    trial = trial or (run_parallel_trial if placement.ranks > 1 else run_trial)
    worker_queue = WorkerQueue(starting or starting_at_once(placement))
    trainable = tune.with_resources(tune.with_parameters(trial, plan=plan), placement.resources())
    with _scratch(shared) as scratch:
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                num_samples=-1,  # the conductor says when there are no more
                search_alg=ControllerSearcher(controller, worker_queue),
                scheduler=ControllerScheduler(controller, worker_queue),
                max_concurrent_trials=placement.max_concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=scratch,
                stop=ControllerStopper(controller, worker_queue),
                failure_config=tune.FailureConfig(max_failures=MAX_CRASHES),
                callbacks=[ControllerCallback(controller, worker_queue)],
                verbose=0,
            ),
        )
        tuner.fit()


def starting_at_once(placement: Placement) -> int:
    """Workers that may be starting side by side: many more than cores only delay each other.

    Ray would start all: 64 on 2 cores had not ended one instant trial after five minutes. A few
    may, so that short trials too run at once from the beginning.
    """
    return max(1, min(placement.max_concurrent, max(int(placement.cpus), _A_FEW)))


@contextmanager
def _scratch(shared: Storage | None) -> Iterator[str]:
    """A folder for what Ray Tune writes, gone at the end; on a cluster all nodes must see it."""
    if shared is None:
        with tempfile.TemporaryDirectory(prefix="unetexp-tune-") as folder:
            yield folder
        return
    place = f"{shared.root}/ray"
    try:
        yield place
    finally:
        remove_files(place)


@contextmanager
def ray_up(
    placement: Placement, address: str | None = None, say: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Ray, quiet: the cluster at `address`, or one of our own here that goes down at the end.

    `say` is told what the user should know of tokens and open ports. Raises UserError as `joined`.
    """
    os.environ.update(_ENVIRONMENT)
    for name in ("ray", "ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the conductor tells how trials end
    for notice in [*use_tokens(), *make_private(token_file())]:
        say(notice)
    if address is None:
        with _own_ray(placement, say):
            yield
    else:
        environment = worker_environment(placement)
        del environment["PYTHONPATH"]  # this machine's folders; our packages travel by themselves
        with joined(address, environment):
            yield


@contextmanager
def _own_ray(placement: Placement, say: Callable[[str], None]) -> Iterator[None]:
    make_token()
    ray.init(
        address="local",
        num_cpus=max(placement.cpus, 1),
        num_gpus=placement.gpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": worker_environment(placement)},
    )
    try:
        for notice in port_notice(open_ports()):
            say(notice)
        yield
    finally:
        leave()


def worker_environment(placement: Placement, *, inherited: bool = False) -> dict[str, str]:
    """Variables of the worker processes; they find this checkout whatever is installed.

    Ray adds them to those of this process; `inherited` ones are in the answer.
    """
    paths = [str(PROJECT_ROOT), os.environ.get("PYTHONPATH", "")]
    return (dict(os.environ) if inherited else {}) | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": str(placement.threads),
        # Each trial runs in a new thread of a reused process, and each thread would get a heap of
        # its own: measured to grow a worker by 0.4 GiB a trial.
        "MALLOC_ARENA_MAX": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # A stopped trial of several ranks ends them before its process is used again.
        "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60" if placement.ranks > 1 else "2",
    }


def private_folder(path: Path) -> Path:
    """The folder, made if need be, that only its owner can enter."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path
