"""Runs a planned sweep: Ray comes up, trials run, everything is closed in order."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray import tune

from sweeps.adapters import Halt, Proposals, Referee, Witness
from sweeps.conductor import Conductor
from sweeps.hardware import Placement
from sweeps.store import PROJECT_ROOT
from sweeps.trial import TrialPlan, run_trial

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the terminal is ours
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: the runs are closed first
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # the ledger is the record; Ray's own is not read
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
}
MAX_CRASHES = 3


def run_trials(conductor: Conductor, plan: TrialPlan, placement: Placement) -> None:
    """Run trials until the conductor has no more to propose; Ray must be up."""
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, plan=plan), placement.resources()
    )
    with tempfile.TemporaryDirectory(prefix="unetexp-tune-") as scratch:
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                num_samples=conductor.recipe.budget.trials,
                search_alg=Proposals(conductor),
                scheduler=Referee(conductor),
                max_concurrent_trials=placement.max_concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=scratch,
                stop=Halt(conductor),
                failure_config=tune.FailureConfig(max_failures=MAX_CRASHES),
                callbacks=[Witness(conductor)],
                verbose=0,
            ),
        )
        tuner.fit()


@contextmanager
def ray_up(placement: Placement) -> Iterator[None]:
    """A Ray of our own on this machine, quiet, and down again at the end."""
    os.environ.update(_ENVIRONMENT)
    for name in ("ray", "ray.tune", "ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
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
        yield
    finally:
        ray.shutdown()


def worker_environment(placement: Placement) -> dict[str, str]:
    """Variables of the worker processes; they find this checkout whatever is installed."""
    paths = [str(PROJECT_ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": str(placement.threads),
        # Each trial runs in a new thread of a reused process, and each thread would get a heap of
        # its own: measured to grow a worker by 0.4 GiB a trial.
        "MALLOC_ARENA_MAX": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def private_folder(path: Path) -> Path:
    """The folder, made if need be, that only its owner can enter."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path
