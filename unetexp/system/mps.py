"""NVIDIA's Multi-Process Service: processes on one GPU compute at the same time, not in turns.

Its control daemon runs for as long as a block, with folders of its own. A shell guards the daemon:
it ends it once nothing can be read from its standard input any more, which is also so when this
process was killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from unetexp.system.short_folder import short_parents

CONTROL = "nvidia-cuda-mps-control"
_PIPES, _LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
_USUAL_PIPES = "/tmp/nvidia-mps"
_LONGEST = 60  # bytes of the folder, which holds sockets
_ANSWER_S = 5.0  # of a daemon, to start or to answer
_PROBE_S = 30.0  # of a process, to start CUDA
_END_S = 15.0  # of a daemon, to end
_GUARD = """
"$0" -f </dev/null >/dev/null 2>&1 &
cat >/dev/null
echo "quit -t 5" | "$0" >/dev/null 2>&1
kill -9 $! 2>/dev/null
"""
_START_CUDA = """
import ctypes, sys
cuda, device, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.c_void_p()
error = (
    cuda.cuInit(0)
    or cuda.cuDeviceGet(ctypes.byref(device), 0)
    or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
)
sys.exit(f"CUDA error {error}" if error else 0)
"""

Probe = Callable[[Mapping[str, str]], str | None]


def cuda_problem(environment: Mapping[str, str]) -> str | None:
    """Why a process with that environment cannot start CUDA; None if it can."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _START_CUDA],
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=_PROBE_S,
        )
    except subprocess.TimeoutExpired:
        return f"CUDA does not start under it within {_PROBE_S:g} s"
    if done.returncode:
        return f"CUDA does not start under it ({(done.stderr.splitlines() or ['?'])[-1]})"
    return None


@contextmanager
def gpus_shared(
    say: Callable[[str], None], probe: Probe = cuda_problem
) -> Iterator[dict[str, str]]:
    """MPS during the block, where it can be had; yields what its processes' environment needs.

    `say` gets a sentence: whether processes on one GPU compute at the same time or take turns, and
    why. A daemon that runs already is used and left running.
    """
    if shutil.which(CONTROL) is None:
        say(_turns(f"there is no {CONTROL} here"))
        yield {}
    elif _answers(os.environ):
        say(f"trials on one GPU compute at the same time (MPS of {_pipes()}, which runs already)")
        yield {}
    else:
        with ExitStack() as daemon:
            environment, problem = daemon.enter_context(_own_daemon(probe))
            if problem is not None:
                daemon.close()
                environment = {}
            say(
                "trials on one GPU compute at the same time (MPS)"
                if problem is None
                else _turns(problem)
            )
            yield environment


def _turns(why: str) -> str:
    return f"trials on one GPU take turns, without MPS: {why}"


def _pipes() -> str:
    return os.environ.get(_PIPES, _USUAL_PIPES)


@contextmanager
def _own_daemon(probe: Probe) -> Iterator[tuple[dict[str, str], str | None]]:
    """The environment for clients of a daemon of our own, or why there is none."""
    parents = short_parents(_LONGEST)
    if not parents:
        yield {}, f"there is no writable folder whose path has at most {_LONGEST} bytes"
        return
    folder = Path(tempfile.mkdtemp(prefix="mps-", dir=parents[0]))
    settings = {_PIPES: str(folder), _LOGS: str(folder)}
    environment = {**os.environ, **settings}
    # The clients name GPUs as this process does; a daemon that saw only some would renumber them.
    for_daemon = {n: v for n, v in environment.items() if n != "CUDA_VISIBLE_DEVICES"}
    guard = subprocess.Popen(
        ["sh", "-c", _GUARD, CONTROL],
        env=for_daemon,
        stdin=subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C is for this process, which ends the daemon last
    )
    try:
        if _comes_up(environment):
            yield settings, probe(environment)
        else:
            yield {}, f"{CONTROL} does not start (not permitted here, or in this container?)"
    finally:
        _end(guard)
        shutil.rmtree(folder, ignore_errors=True)


def _comes_up(environment: Mapping[str, str]) -> bool:
    until = time.monotonic() + _ANSWER_S
    while time.monotonic() < until:
        if _answers(environment):
            return True
        time.sleep(0.05)
    return False


def _answers(environment: Mapping[str, str]) -> bool:
    """Whether a control daemon runs for processes with that environment."""
    try:
        done = subprocess.run(
            [CONTROL],
            input="get_server_list\n",
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=_ANSWER_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _end(guard: subprocess.Popen[bytes]) -> None:
    assert guard.stdin is not None
    guard.stdin.close()
    try:
        guard.wait(_END_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(guard.pid, signal.SIGKILL)
        guard.wait()
