"""The processes that are disturbed: a sweep's driver and an MLflow server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil

from benchmarks.disturbance.shaken import Controls
from sweeps.state.ledger import FILE, Ledger

ROOT = Path(__file__).resolve().parents[2]
SHAKEN = ROOT / "benchmarks" / "disturbance" / "shaken.py"
PATIENCE_S = 180.0


class Server:
    """An MLflow server on this machine that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.start()

    def start(self) -> None:
        """Start it; returns once it answers."""
        options = {
            "backend-store-uri": f"sqlite:///{self.folder / 'mlflow.db'}",
            "artifacts-destination": self.folder / "artifacts",
            "host": "127.0.0.1",
            "port": self.port,
            "workers": 1,
        }
        command = [f"--{name}={value}" for name, value in options.items()]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *command],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self._process.poll() is None, "the MLflow server ended by itself"
            assert time.monotonic() < deadline, "the MLflow server does not start"
            time.sleep(0.2)

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=2).status == 200
        except OSError:
            return False


class Sweep:
    """A sweep from the command line, in its own process, which can be resumed."""

    def __init__(
        self, name: str, place: Path, storage: Path, flags: list[object], controls: Controls
    ) -> None:
        """`place` holds `small.yaml`, the data and the logs."""
        self.name, self.place, self.controls = name, place, controls
        self.folder = storage / name
        self._controls_file = place / f"{name}.json"
        self.log = (place / f"{name}.log").open("a", encoding="utf-8")
        self._first = [
            place / "small.yaml", "--data", place / "data", "--storage", storage, "--name", name,
            "--gpus", 0, "--cpus-per-trial", 1, "--skip-preflight", *flags,
        ]  # fmt: skip
        self._uri = flags[flags.index("--tracking-uri") + 1]

    def start(self) -> None:
        self._run(*self._first)

    def resume(self) -> None:
        self._run("--resume", self.name, "--tracking-uri", self._uri)

    def _run(self, *arguments: object) -> None:
        self.control()
        command = [
            sys.executable,
            SHAKEN,
            self._controls_file,
            *arguments,
        ]
        self.note(f"$ {' '.join(map(str, command))}")
        self.driver = subprocess.Popen(
            [str(word) for word in command],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    def close(self) -> None:
        """Kill the driver and close the log."""
        self.driver.kill()
        self.driver.wait()
        self.log.close()

    def note(self, text: str) -> None:
        self.log.write(f"{text}\n")
        self.log.flush()

    def control(self, **controls: float | None) -> None:
        """Change some of the driver's controls."""
        for name, value in controls.items():
            setattr(self.controls, name, value)
        self.controls.write(self._controls_file)

    @property
    def exit_code(self) -> int | None:
        return self.driver.poll()

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        return self.driver.wait(patience_s)

    def epochs(self) -> list[dict]:
        """The epochs in the ledger."""
        path = self.folder / FILE
        return list(Ledger(path, write=False).of("epoch")) if path.exists() else []

    def reaches(self, epochs: int) -> bool:
        """Wait until the ledger holds `epochs` epochs; False when the driver ended before."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.epochs()) < epochs:
            assert time.monotonic() < deadline, f"no {epochs} epochs: see {self.log.name}"
            if self.exit_code is not None:
                return False
            time.sleep(0.02)
        return True

    def processes(self, word: str) -> list[psutil.Process]:
        """The driver's descendants with `word` in their command line; waits until there are any."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            everyone = psutil.Process(self.driver.pid).children(recursive=True)
            if found := [process for process in everyone if word in _command(process)]:
                return found
            time.sleep(0.1)
        raise AssertionError(f"the driver has no process {word}")


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
