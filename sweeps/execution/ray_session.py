"""Ray for the duration of a block: a new instance on this machine, or a running cluster."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private import services

from sweeps.execution.cluster import joined, leave
from sweeps.execution.placement import Placement
from sweeps.execution.ray_security import (
    make_private,
    make_token,
    open_ports,
    port_warning,
    token_file,
    use_tokens,
)
from sweeps.tracking.store import PROJECT_ROOT
from unetexp.errors import UserError
from unetexp.system.mps import CONTROL, gpus_shared
from unetexp.system.short_folder import fits, short_parents
from unetexp.system.stop_signals import handlers_kept

log = logging.getLogger(__name__)

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # we print to the terminal
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # we handle Ctrl-C, to close the runs first
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # the ledger is the record; Ray's own is not read
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "auto",  # the worker queue limits the starts
}
_LONGEST = 39  # bytes of the folder; Ray's sockets need 64 more, of 103 on macOS and 107 on Linux
_MPS_ON_NODES = (
    "trials on one GPU take turns on nodes without MPS: to let them compute at the same time, run "
    f"{CONTROL} -d on each node before `ray start`"
)
_OWN_FOLDER = "ray-"  # and eight letters


@contextmanager
def ray_up(
    placement: Placement, address: str | None = None, say: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Ray, quiet: the cluster at `address`, or a new instance here that is shut down at the end.

    `say` gets warnings about tokens and open ports, and how trials share a GPU; the usual ports are
    only logged. The signal handlers are kept. Raises UserError as `joined` and
    `require_short_folder`.
    """
    os.environ.update(_ENVIRONMENT)
    for name in ("ray", "ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the controller logs how trials end
    for warning in [*use_tokens(), *make_private(token_file())]:
        say(warning)
    if address is None:
        with (
            short_folder() as folder,
            _gpus_shared(placement, say) as shared,
            _own_ray(placement, folder, shared),
        ):
            yield
    else:
        environment = worker_environment(placement)
        del environment["PYTHONPATH"]  # paths of this machine; our packages are sent with the job
        with joined(address, environment):
            for warning in port_warning(open_ports()):
                say(warning)
            if placement.gpu_share < 1:
                say(_MPS_ON_NODES)
            yield


class _DetachedPopen(services.ConsolePopen):  # type: ignore[misc]  # Ray has no types
    """Starts a process in a process group of its own."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options, process_group=0)


@contextmanager
def _own_process_groups() -> Iterator[None]:
    """Keep Ray's processes out of this process's group while the block starts them.

    A signal to the whole group (`timeout`, a closing terminal) would end them first, and Ray then
    ends the driver before the sweep is closed.
    """
    usual, services.ConsolePopen = services.ConsolePopen, _DetachedPopen
    try:
        yield
    finally:
        services.ConsolePopen = usual


@contextmanager
def _gpus_shared(placement: Placement, say: Callable[[str], None]) -> Iterator[dict[str, str]]:
    """What workers need in their environment to compute on one GPU at the same time."""
    if placement.gpu_share == 1:
        yield {}
        return
    with gpus_shared(say) as environment:
        yield environment


@contextmanager
def _own_ray(placement: Placement, folder: Path | None, shared: dict[str, str]) -> Iterator[None]:
    make_token()
    try:
        with handlers_kept(), _own_process_groups():
            ray.init(
                address="local",
                num_cpus=max(placement.cpus, 1),
                num_gpus=placement.gpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": worker_environment(placement) | shared},
                _temp_dir=None if folder is None else str(folder),
            )
        for warning in port_warning(open_ports()):
            log.info(warning)
        yield
    finally:
        leave()


def require_short_folder() -> None:
    """Raise UserError unless there is a folder for Ray's sockets, or one can be created."""
    with short_folder():
        pass


@contextmanager
def short_folder() -> Iterator[Path | None]:
    """A private temporary folder for Ray's sockets and logs; None if Ray's default can be used.

    Raises UserError where the default has too long a path or cannot be written, and no other can
    be created.
    """
    usual = _usual_folder()
    if fits(usual, _LONGEST):
        yield None
        return
    folder = _made_folder(usual)
    log.info("Ray's sockets and logs are in %s: %s is too long or not writable", folder, usual)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # ending processes may still write there


def _usual_folder() -> Path:
    """Ray's default folder."""
    given = os.environ.get("RAY_TMPDIR")
    if given is None and sys.platform == "linux":
        given = os.environ.get("TMPDIR")
    return Path(given or "/tmp") / "ray"


def _made_folder(usual: Path) -> Path:
    for parent in short_parents(_LONGEST - len(f"/{_OWN_FOLDER}") - 8):
        try:
            return Path(tempfile.mkdtemp(prefix=_OWN_FOLDER, dir=parent))
        except OSError:  # full, for example: try the next
            continue
    raise UserError(
        f"Ray cannot keep its sockets in {usual}: it cannot be written, or its path has more than "
        f"{_LONGEST} bytes; nor in /tmp or /var/tmp. Set RAY_TMPDIR to a writable folder with a "
        "short path: RAY_TMPDIR=/some/folder"
    )


def worker_environment(placement: Placement) -> dict[str, str]:
    """Environment of the worker processes, which import this checkout, not an installed copy."""
    paths = [str(PROJECT_ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": str(placement.threads),
        # Each trial of a reused process has new threads (Ray's, and those that load crops), and
        # each thread would get its own heap: a worker was measured to grow by 0.4 GiB per trial.
        "MALLOC_ARENA_MAX": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # A stopped trial frees its memory, or ends its ranks, before its process is used again.
        # If that takes longer than this, Ray drops the next trial silently.
        "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    }
