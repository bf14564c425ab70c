"""Ray for the length of a block: one of our own on this machine, or a running cluster."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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
from unetexp.errors import UserError
from unetexp.short_folder import fits, short_parents
from unetexp.stop_signals import handlers_kept

log = logging.getLogger(__name__)

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
_LONGEST = 39  # bytes of the folder; Ray's sockets take 64 more, of 103 on macOS and 107 on Linux
_OWN_FOLDER = "ray-"  # and eight letters


@contextmanager
def ray_up(
    placement: Placement, address: str | None = None, say: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Ray, quiet: the cluster at `address`, or one of our own here that goes down at the end.

    `say` is told what the user should know of tokens and shared ports; what is as usual is in the
    log. The handlers of signals stay as they are. Raises UserError as `joined` and
    `require_short_folder`.
    """
    os.environ.update(_ENVIRONMENT)
    for name in ("ray", "ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the controller logs how trials end
    for notice in [*use_tokens(), *make_private(token_file())]:
        say(notice)
    if address is None:
        with short_folder() as folder, _own_ray(placement, folder):
            yield
    else:
        environment = worker_environment(placement)
        del environment["PYTHONPATH"]  # this machine's folders; our packages travel by themselves
        with joined(address, environment):
            for notice in port_notice(open_ports()):
                say(notice)
            yield


@contextmanager
def _own_ray(placement: Placement, folder: Path | None) -> Iterator[None]:
    make_token()
    try:
        with handlers_kept():
            ray.init(
                address="local",
                num_cpus=max(placement.cpus, 1),
                num_gpus=placement.gpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": worker_environment(placement)},
                _temp_dir=None if folder is None else str(folder),
            )
        for notice in port_notice(open_ports()):
            log.info(notice)
        yield
    finally:
        leave()


def require_short_folder() -> None:
    """Raise UserError unless there is a folder for Ray's sockets, or one can be made."""
    with short_folder():
        pass


@contextmanager
def short_folder() -> Iterator[Path | None]:
    """A private folder for Ray's sockets and logs, gone at the end; None where its own will do.

    Raises UserError where Ray's own has too long a path or cannot be written, and no other can be
    made.
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
        shutil.rmtree(folder, ignore_errors=True)  # processes that end may still write there


def _usual_folder() -> Path:
    """Where Ray would go by itself."""
    given = os.environ.get("RAY_TMPDIR")
    if given is None and sys.platform == "linux":
        given = os.environ.get("TMPDIR")
    return Path(given or "/tmp") / "ray"


def _made_folder(usual: Path) -> Path:
    for parent in short_parents(_LONGEST - len(f"/{_OWN_FOLDER}") - 8):
        try:
            return Path(tempfile.mkdtemp(prefix=_OWN_FOLDER, dir=parent))
        except OSError:  # a full one; the next may do
            continue
    raise UserError(
        f"Ray cannot keep its sockets in {usual}: it cannot be written, or its path has more than "
        f"{_LONGEST} bytes; nor in /tmp or /var/tmp. Name a folder with a short path that can be "
        "written: RAY_TMPDIR=/some/folder"
    )


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
        # A stopped trial frees its memory, or ends its ranks, before its process is used again.
        # Where that takes longer, Ray drops the next trial without a word.
        "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    }
