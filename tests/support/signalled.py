"""Commands in their own processes, which tests send signals to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]


class Command:
    """A running command in its own session; its output is read line by line."""

    def __init__(self, *arguments, ignore=None, env=None):
        def prepare():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN if number == ignore else signal.SIG_DFL)

        self.process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=prepare,
        )
        self.lines = []
        self.family = set()

    def wait_for(self, text, timeout_s=300):
        """Read up to the line that contains `text`."""
        deadline = time.monotonic() + timeout_s
        for line in self.process.stdout:
            self.lines.append(line)
            if text in line:
                return
            assert time.monotonic() < deadline, self.output
        raise AssertionError(f"ended before {text!r}: {self.output}")

    def send(self, number, *, group=False):
        """Send a signal to the process, or to its group, too; remember its child processes."""
        self.family |= set(psutil.Process(self.process.pid).children(recursive=True))
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def end(self, timeout_s=60):
        """The exit code, and how many seconds the command took to end."""
        asked = time.monotonic()
        try:
            rest, _ = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            raise AssertionError(f"it did not end: {self.output}") from None
        self.lines.append(rest)
        return self.process.returncode, time.monotonic() - asked

    @property
    def output(self):
        return "".join(self.lines)

    def left_behind(self):
        """The names of its processes that have not ended within 8 seconds."""
        _, alive = psutil.wait_procs(self.family, timeout=8)
        return [process.name() for process in alive if process.status() != psutil.STATUS_ZOMBIE]
