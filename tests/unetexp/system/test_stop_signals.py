"""Stop signals and lost output, without anything that takes seconds to import."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys

import pytest

from tests.support.data_folders import write_folder_dataset
from tests.support.signalled import ROOT, Command

START = """
import os, signal, sys, time
from unetexp.system.stop_signals import *
from unetexp.cli.exit_codes import exit_codes
"""


def python(code, **named):
    return Command("-c", START + code, **named)


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "stopped by SIGTERM"),
        (signal.SIGHUP, 143, "stopped by SIGHUP"),
    ],
)
def test_a_command_ends_with_one_line(number, code, line):
    command = python("with exit_codes(): print('here', flush=True); time.sleep(60)")
    command.wait_for("here")
    command.send(number)
    assert command.end()[0] == code
    assert command.lines[1:] == [f"{line}\n"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_imports_is_one_line(number):
    command = python("begin_process(); print('here', flush=True); time.sleep(60)")
    command.wait_for("here")
    command.send(number)
    assert command.end()[0] == 143
    assert command.lines[1:] == [f"stopped by {number.name}\n"]


def test_a_library_keeps_out_with_its_handlers():
    command = python(
        "with exit_codes():\n"
        "    with handlers_kept(): signal.signal(signal.SIGTERM, lambda *_: os._exit(9))\n"
        "    print('here', flush=True); time.sleep(60)"
    )
    command.wait_for("here")
    command.send(signal.SIGTERM)
    assert command.end()[0] == 143


def test_what_is_held_is_raised_at_the_release():
    command = python(
        "with exit_codes():\n"
        "    hold(); print('here', flush=True); time.sleep(2); print('made', flush=True)\n"
        "    release(); print('not reached')"
    )
    command.wait_for("here")
    command.send(signal.SIGTERM)
    assert command.end()[0] == 143
    assert command.lines[1:] == ["made\nstopped by SIGTERM\n"]


def test_a_fork_is_ended_as_usual():
    command = python(
        "with exit_codes():\n"
        "    child = os.fork()\n"
        "    if child == 0: time.sleep(60)\n"
        "    time.sleep(0.5); os.kill(child, signal.SIGTERM)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    code, _ = command.end()
    assert (code, command.output) == (0, "-15\n")


@pytest.mark.parametrize("lost", ["pipe", "terminal"])
def test_a_command_outlives_its_output(tmp_path, lost):
    reader, writer = os.pipe() if lost == "pipe" else pty.openpty()
    code = START + (
        "with exit_codes():\n"
        "    print('to the screen', flush=True); time.sleep(2)\n"
        "    [print(n, flush=True) for n in range(99)]\n"
        "    open(sys.argv[1], 'w').write('done')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "end")]
    with subprocess.Popen(command, cwd=ROOT, stdout=writer) as process:
        os.close(writer)
        os.read(reader, 99)
        os.close(reader)
    assert process.returncode == 0
    assert (tmp_path / "end").read_text() == "done"


@pytest.mark.slow
def test_training_that_is_stopped_says_how_to_go_on(tmp_path):
    write_folder_dataset(tmp_path / "data", splits={"train": 4, "val": 2}, size=(40, 48))
    arguments = [
        *("-c", "from unetexp.cli.main import app; app()", "train", "--data", tmp_path / "data"),
        *("--out", tmp_path / "out"),
        *("--device", "cpu", "--epochs", 500),
        *("--set", "encoder={name: resnet18, weights: none}", "--set", "augment.crop_px=32"),
        *("--set", "batch_size=2"),
    ]
    command = Command(*arguments)
    command.wait_for("epoch 2/500")
    command.send(signal.SIGTERM)
    code, seconds = command.end()
    assert code == 143, command.output
    assert seconds < 10
    assert f"--out {tmp_path / 'out'}" in command.output
    assert "Traceback" not in command.output
    again = Command(*arguments)
    again.wait_for("continuing after epoch")
    again.send(signal.SIGTERM)
    assert again.end()[0] == 143
