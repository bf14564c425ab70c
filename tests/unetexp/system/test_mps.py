"""MPS with a control program of our own in place of NVIDIA's: when it starts, and that it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from unetexp.system import mps
from unetexp.system.mps import CONTROL, cuda_problem, gpus_shared

DAEMON = """#!/bin/sh
pipes="${CUDA_MPS_PIPE_DIRECTORY:-$USUAL}"
if [ "$1" = -f ]; then
    [ -n "$REFUSES" ] && exit 1
    echo "$$ ${CUDA_VISIBLE_DEVICES-all}" > "$RECORD"
    touch "$pipes/control"
    while [ ! -e "$pipes/quit" ]; do sleep 0.02; done
    rm "$pipes/control"
    exit 0
fi
[ -e "$pipes/control" ] || { echo "Cannot find MPS control daemon process"; exit 1; }
read -r command
case "$command" in quit*) [ -n "$HANGS" ] || touch "$pipes/quit";; esac
"""


@pytest.fixture
def record(tmp_path, monkeypatch):
    """A control program; the file that its daemon writes its process id into."""
    program = tmp_path / "bin" / CONTROL
    program.parent.mkdir()
    program.write_text(DAEMON)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    monkeypatch.setenv("USUAL", str(tmp_path / "usual"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    monkeypatch.setattr(mps, "_ANSWER_S", 2.0)
    return tmp_path / "record"


def works(environment):
    return None


def is_gone(process: int, within_s: float = 10.0) -> bool:
    until = time.monotonic() + within_s
    while psutil.pid_exists(process) and psutil.Process(process).status() != "zombie":
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def test_without_the_program_trials_take_turns_and_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    said = []
    with gpus_shared(said.append, works) as environment:
        assert environment == {}
    assert said == [f"trials on one GPU take turns, without MPS: there is no {CONTROL} here"]


def test_the_daemon_runs_for_the_block_in_a_private_folder_that_goes(record):
    said = []
    with gpus_shared(said.append, works) as environment:
        process, visible = record.read_text().split()
        folder = Path(environment["CUDA_MPS_PIPE_DIRECTORY"])
        assert psutil.pid_exists(int(process))
        assert visible == "all"  # clients keep their numbers of GPUs
        assert len(bytes(folder)) <= 60
        assert folder.stat().st_mode & 0o777 == 0o700
        assert set(environment) == {"CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"}
    assert said == ["trials on one GPU compute at the same time (MPS)"]
    assert is_gone(int(process))
    assert not folder.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_it_ends_however_the_block_ends(record, error):
    with pytest.raises(error), gpus_shared(print, works):
        raise error
    assert is_gone(int(record.read_text().split()[0]))


def test_one_that_does_not_quit_is_killed(record, monkeypatch):
    monkeypatch.setenv("HANGS", "1")
    with gpus_shared(print, works):
        process = int(record.read_text().split()[0])
    assert is_gone(process)


def test_a_daemon_that_does_not_start_is_told(record, monkeypatch):
    monkeypatch.setenv("REFUSES", "1")
    monkeypatch.setattr(mps, "_ANSWER_S", 0.5)
    said = []
    with gpus_shared(said.append, works) as environment:
        assert environment == {}
    assert "take turns" in said[0]
    assert "does not start" in said[0]


def test_where_cuda_does_not_start_under_it_trials_take_turns(record):
    said, given = [], []

    def refuses(environment):
        given.append(environment)
        return "CUDA does not start under it (CUDA error 805)"

    with gpus_shared(said.append, refuses) as environment:
        assert environment == {}
        assert is_gone(int(record.read_text().split()[0]))
    assert given[0]["CUDA_MPS_PIPE_DIRECTORY"]
    assert given[0]["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert said[0].endswith("(CUDA error 805)")


def test_a_daemon_that_runs_already_is_used_and_left_alone(record, tmp_path):
    (tmp_path / "usual").mkdir()
    (tmp_path / "usual" / "control").touch()
    said = []
    with gpus_shared(said.append, works) as environment:
        assert environment == {}
    assert "runs already" in said[0]
    assert not record.exists()
    assert not (tmp_path / "usual" / "quit").exists()


def test_it_ends_with_a_process_that_was_killed(record):
    script = (
        "import time; from unetexp.system.mps import gpus_shared\n"
        "with gpus_shared(print, lambda _: None): print('up', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        while "up" not in driver.stdout.readline():
            pass
        process = int(record.read_text().split()[0])
        driver.send_signal(signal.SIGKILL)
    assert is_gone(process)


def test_the_probe_says_that_there_is_no_driver_here():
    problem = cuda_problem(os.environ)
    assert problem is None or "CUDA does not start" in problem
