"""Sweeps that are told to stop: by a batch system, a container, a lost terminal."""

from __future__ import annotations

import os
import pty
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.signalled import ROOT, Command
from tests.support.sweep_command import Place, run

pytestmark = pytest.mark.slow  # test_resume.py interrupts a sweep, test_stop_signals.py commands
SWEEP = ROOT / "sweeps" / "run.py"
FEW = [
    *("--gpus", 0, "--max-concurrent", 1, "--trials", 2, "--epochs", 3),
    *("--set", "asha.enabled=false", "--skip-preflight"),
]
LONG = 500  # epochs of a trial that is not waited for
TOLD_S = 25  # 10 s on a machine that does nothing else

# Runs the command whose one function, MODULE:NAME, says that it was reached and then waits.
PAUSED = """
import importlib, sys, time
sys.path[0] = {root!r}
from unetexp.system.stop_signals import begin_process
begin_process()
home, _, name = sys.argv.pop(1).partition(":")
*owners, name = name.split(".")
owner = importlib.import_module(home)
for each in owners:
    owner = getattr(owner, each)
def pause(*arguments, **named):
    print("REACHED", flush=True)
    time.sleep(120)
setattr(owner, name, pause)
from sweeps.cli.run import app
app()
"""

IN_A_TASK = """
import sys, time
sys.path[0] = {root!r}
from unetexp.system.stop_signals import begin_process
begin_process()
import ray
from sweeps.execution.placement import Placement
from sweeps.execution.ray_session import ray_up
from unetexp.cli.exit_codes import exit_codes
def wait():
    time.sleep(120)
with exit_codes():
    with ray_up(Placement(1, 0, 1.0, 0.0, 1, simulated=False)):
        print("REACHED", flush=True)
        ray.get(ray.remote(wait).remote())
"""


WHILE_RAY_ENDS = """
import os, signal, sys
sys.path[0] = {root!r}
from unetexp.system.stop_signals import begin_process
begin_process()
from ray._private.node import Node
from sweeps.execution.placement import Placement
from sweeps.execution.ray_session import ray_up
from unetexp.cli.exit_codes import exit_codes
end = Node.kill_all_processes
def signalled(*arguments, **named):
    os.kill(os.getpid(), signal.SIGTERM)
    return end(*arguments, **named)
Node.kill_all_processes = signalled
with exit_codes():
    with ray_up(Placement(1, 0, 1.0, 0.0, 1, simulated=False)):
        print("REACHED", flush=True)
    print("not stopped")
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("signals"))


def sweep(place, name, *arguments, **named):
    return Command(SWEEP, place.recipe, *place.flags, *FEW, "--name", name, *arguments, **named)


def script(folder, text):
    path = folder / "script.py"
    path.write_text(text.format(root=str(ROOT)))
    return path


def require_orderly(command, name, code=143):
    """It ends soon with the code, says how to go on, and leaves no process."""
    ended, seconds = command.end()
    assert ended == code, command.output
    assert seconds < TOLD_S
    assert f"--resume {name}" in command.output
    assert "Traceback" not in command.output
    assert "***" not in command.output
    assert command.left_behind() == []


@pytest.mark.parametrize(
    ("number", "group"),
    [(signal.SIGTERM, False), (signal.SIGHUP, False), (signal.SIGTERM, True)],
    ids=["SIGTERM", "SIGHUP", "SIGTERM to Ray's processes too"],
)
def test_a_signal_during_a_trial_closes_the_runs(place, number, group):
    name = f"during-{number}-{int(group)}"
    command = sweep(place, name, "--epochs", LONG)
    command.wait_for("trial 0000 epoch 2")
    command.send(number, group=group)
    require_orderly(command, name)
    assert f"stopped by {number.name}" in command.output
    (parent,), (child,) = place.runs(name)
    assert (parent.info.status, child.info.status) == ("KILLED", "KILLED")
    assert child.data.tags["stop_reason"] == "interrupted"


def test_several_signals_at_once_are_one(place):
    command = sweep(place, "several", "--epochs", LONG)
    command.wait_for("trial 0000 epoch 1")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
        command.send(number)
    require_orderly(command, "several")


def test_a_second_ctrl_c_ends_it_at_once(place):
    command = sweep(place, "twice", "--epochs", LONG)
    command.wait_for("trial 0000 epoch 1")
    for _ in range(2):
        command.send(signal.SIGINT)
        time.sleep(0.2)
    code, seconds = command.end()
    assert code == 130
    assert seconds < 3
    assert command.left_behind() == []


def test_under_nohup_a_hangup_changes_nothing(place):
    command = sweep(place, "nohup", "--trials", 1, ignore=signal.SIGHUP)
    command.wait_for("trial 0000 epoch 1")
    command.send(signal.SIGHUP)
    code, _ = command.end(120)
    assert code == 0, command.output


def test_a_signal_while_ray_starts(place):
    command = sweep(place, "starting")
    command.wait_for("Trials, best first")
    time.sleep(0.7)
    command.send(signal.SIGTERM)
    require_orderly(command, "starting")
    (parent,), _ = place.runs("starting")
    assert parent.info.status == "KILLED"


@pytest.mark.parametrize(
    "step",
    [
        "sweeps.cli.run_sweep:prepare",
        "sweeps.preflight.preflight:check_on_device",
        "sweeps.driver.sweep:open_store",
    ],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_before_anything_is_made_one_line_is_all(tmp_path, step, number):
    place = Place(tmp_path)
    command = Command(
        *(script(tmp_path, PAUSED), step, place.recipe, *place.flags, "--gpus", 0, "--name", "x")
    )
    command.wait_for("REACHED")
    command.send(number)
    code, seconds = command.end()
    assert code == 143, command.output
    assert seconds < TOLD_S
    assert command.lines[-1].strip() == f"stopped by {number.name}"
    assert not place.storage.exists()
    assert not (tmp_path / "mlflow.db").exists()


def test_a_signal_while_the_sweep_is_made(tmp_path):
    place = Place(tmp_path)
    slow = PAUSED.replace("time.sleep(120)", "time.sleep(2); return made(*arguments, **named)")
    slow = slow.replace("def pause", "made = getattr(owner, name)\ndef pause")
    step = "sweeps.tracking.tracker:Tracker.start_sweep"
    command = Command(
        *(script(tmp_path, slow), step, place.recipe, *place.flags, *FEW, "--name", "made")
    )
    command.wait_for("REACHED")
    command.send(signal.SIGTERM)
    require_orderly(command, "made")
    (parent,), children = place.runs("made")
    assert (parent.info.status, children) == ("KILLED", [])


@pytest.mark.parametrize(
    ("step", "status"),
    [
        ("sweeps.tracking.tracker:Tracker.end_sweep", "RUNNING"),
        ("sweeps.report:write_report", "FINISHED"),
    ],
    ids=["MLflow catches up", "the report is written"],
)
def test_a_signal_at_the_end(place, tmp_path, step, status):
    name = f"end-{status.lower()}"
    command = Command(
        *(script(tmp_path, PAUSED), step, place.recipe, *place.flags, *FEW),
        *("--trials", 1, "--epochs", 1, "--name", name),
    )
    command.wait_for("REACHED")
    command.send(signal.SIGTERM)
    require_orderly(command, name)
    (parent,), (child,) = place.runs(name)
    assert (parent.info.status, child.info.status) == (status, "FINISHED")

    resumed = run("--resume", name, "--tracking-uri", place.uri)

    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "read the report" in resumed.stdout
    (parent,), _ = place.runs(name)
    assert parent.info.status == "FINISHED"


def test_a_signal_during_the_preflights_task(tmp_path):
    command = Command(script(tmp_path, IN_A_TASK))
    command.wait_for("REACHED")
    time.sleep(1)
    command.send(signal.SIGTERM)
    code, seconds = command.end()
    assert (code, command.lines[-1]) == (143, "stopped by SIGTERM\n")
    assert seconds < TOLD_S
    assert command.left_behind() == []


def test_a_signal_while_ray_ends(tmp_path):
    command = Command(script(tmp_path, WHILE_RAY_ENDS))
    command.wait_for("REACHED")
    code, _ = command.end()
    assert (code, command.lines[-1]) == (143, "stopped by SIGTERM\n")


def test_a_signal_during_a_confirmation(place):
    done = run(place.recipe, *place.flags, *FEW, "--trials", 1, "--epochs", 8, "--name", "origin")
    assert done.returncode == 0, done.stdout + done.stderr
    command = Command(
        *(ROOT / "sweeps" / "promote.py", "origin", "--confirm", 1, "--seeds", 2, "--gpus", 0),
        *("--split", "val", "--tracking-uri", place.uri),
    )
    command.wait_for("trial 0000 epoch 1/8")
    command.send(signal.SIGTERM)
    require_orderly(command, "origin-confirm")
    (parent,), (child,) = place.runs("origin-confirm")
    assert (parent.info.status, child.info.status) == ("KILLED", "KILLED")


class Terminal:
    """A sweep on a terminal of its own, which can be closed as a dropped ssh session closes it."""

    def __init__(self, *arguments):
        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.environ["OMP_NUM_THREADS"] = "1"
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
            os.execv(sys.executable, [sys.executable, *map(str, arguments)])

    def wait_until(self, seen, timeout_s=150):
        """Read what is shown until `seen()`."""
        deadline = time.monotonic() + timeout_s
        os.set_blocking(self.screen, False)
        while not seen():
            assert time.monotonic() < deadline
            try:
                os.read(self.screen, 65536)
            except BlockingIOError:
                time.sleep(0.1)

    def close(self):
        os.close(self.screen)

    def end(self):
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)


@pytest.mark.timeout(600)  # most of it is the way to the first epoch, beside other slow tests
def test_a_terminal_that_is_lost(place):
    ledger = Path(place.storage) / "lost" / "ledger.jsonl"
    terminal = Terminal(
        *(SWEEP, place.recipe, *place.flags, *FEW, "--epochs", LONG, "--name", "lost")
    )
    terminal.wait_until(lambda: ledger.exists() and b'"epoch"' in ledger.read_bytes())
    family = psutil.Process(terminal.pid).children(recursive=True)
    asked = time.monotonic()
    terminal.close()
    assert terminal.end() == 143
    assert time.monotonic() - asked < TOLD_S
    _, alive = psutil.wait_procs(family, timeout=8)
    assert alive == []
    (parent,), (child,) = place.runs("lost")
    assert (parent.info.status, child.info.status) == ("KILLED", "KILLED")
