"""Ray for the length of a block: one of our own on this machine, or a running cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray

from sweeps.execution.cluster import joined, leave
from sweeps.execution.placement import Placement
from sweeps.execution.ray_security import (
    make_private,
    make_token,
    open_ports,
    port_notice,
    token_file,
    use_tokens,
)
from sweeps.tracking.store import PROJECT_ROOT

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the terminal is ours
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: the runs are closed first
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # the ledger is the record; Ray's own is not read
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "auto",  # the worker queue holds back what would start too early
}


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
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the controller logs how trials end
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
        # A stopped trial of several ranks ends them before its process is used again.
        "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60" if placement.ranks > 1 else "2",
    }
