"""A real sweep on the CPU, disturbed by random faults and resumed, against its undisturbed twin.

    python benchmarks/chaos.py                      21 faults, about 15 minutes on 2 cores
    python benchmarks/chaos.py --faults driver,worker,checkpoint,clock --count 4 --trials 2

The faults, in an order drawn from the seed: `driver` and `node` (kill -9 of the driver, of the
machine's Ray node), `ctrl-c`, `worker` (kill -9), `disk` (full), `server` (the MLflow server dies
and comes back), `checkpoint` (the newest is cut short, its worker killed), `clock` (a jump of the
driver's clock of up to a day). A driver that is gone is brought back with `--resume`.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # this checkout, not this folder

RECIPE = """
base:
  encoder: {name: resnet18, weights: none}
  augment: {crop_px: 32}
  batch_size: 2
space:
  encoder.freeze: {kind: choice, values: [none, stem]}
  decoder.upsampling: {kind: choice, values: [bilinear, nearest]}
  loss.kind: {kind: choice, values: [cross_entropy, focal]}
  loss.gamma: {kind: uniform, low: 1, high: 3, when: {loss.kind: focal}}
  optimizer.lr: {kind: loguniform, low: 1.0e-3, high: 1.0e-2}
"""
DISK_MIB = 2048
PATIENCE_S = 90.0
LONGEST_JUMP_S = 86_400.0
NAME, TWIN = "disturbed", "twin"


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
            assert time.monotonic() < deadline, "the MLflow server does not come up"
            time.sleep(0.5)

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=2).status == 200
        except OSError:
            return False


class Sweep:
    """A sweep from the command line, in a process of its own, started again when it died."""

    def __init__(self, name: str, place: Path, storage: Path, uri: str, flags: list[str]) -> None:
        self.name, self.place, self.uri = name, place, uri
        self.folder = storage / name
        self.clock = place / f"{name}.clock"
        self.clock.write_text("0", encoding="utf-8")
        self.log = (place / f"{name}.log").open("a", encoding="utf-8")
        self._first = [
            place / "small.yaml", "--data", place / "data", "--storage", storage, "--name", name,
            "--gpus", 0, "--max-concurrent", 1, "--cpus-per-trial", 1, "--skip-preflight", *flags,
        ]  # fmt: skip
        self._run(*self._first)

    def resume(self) -> None:
        self._run("--resume", self.name)

    def _run(self, *arguments: object) -> None:
        command = [sys.executable, ROOT / "benchmarks/shaken.py", self.clock, *arguments]
        command += ["--tracking-uri", self.uri]
        self.log.write(f"$ {' '.join(map(str, command))}\n")
        self.log.flush()
        self.driver = subprocess.Popen(
            [str(word) for word in command],
            env={**os.environ, "UNETEXP_CACHE": str(self.place / "cache"), "OMP_NUM_THREADS": "1"},
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    @property
    def exit_code(self) -> int | None:
        return self.driver.poll()

    def events(self, *kinds: str) -> list[dict]:
        from sweeps.ledger import FILE, Ledger

        path = self.folder / FILE
        return list(Ledger(path, write=False).of(*kinds)) if path.exists() else []

    def wait_for_epochs(self, count: int) -> bool:
        """Until so many more epochs are on record; False when the driver ended before."""
        aim, deadline = len(self.events("epoch")) + count, time.monotonic() + PATIENCE_S
        while len(self.events("epoch")) < aim and time.monotonic() < deadline:
            if self.exit_code is not None:
                return False
            time.sleep(0.05)
        return True

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        return self.driver.wait(patience_s)

    def processes(self, word: str) -> list[psutil.Process]:
        """The driver's descendants that have `word` in their command line."""
        found = []
        for process in psutil.Process(self.driver.pid).children(recursive=True):
            try:
                if word in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found


class Chaos:
    """The faults: each returns once its effect is there, with the driver running or gone."""

    def __init__(self, sweep: Sweep, server: Server | None, rng: random.Random) -> None:
        self.sweep, self.server, self.rng = sweep, server, rng

    def driver(self) -> None:
        self.sweep.driver.kill()
        self.sweep.wait()

    def node(self) -> None:
        for process in self.sweep.processes("raylet/raylet"):
            process.kill()
        self.sweep.wait()

    def ctrl_c(self) -> None:
        self.sweep.driver.send_signal(signal.SIGINT)
        self.sweep.wait()

    def worker(self) -> None:
        for process in self.sweep.processes("ray::ImplicitFunc"):
            process.kill()

    def checkpoint(self) -> None:
        newest = max(self.sweep.folder.glob("trials/*/epoch-*/state.pt"), key=_age, default=None)
        if newest is not None:
            os.truncate(newest, newest.stat().st_size // 2)
        self.worker()

    def disk(self) -> None:
        filler = self.sweep.folder.parent / "filler"
        fill(filler)
        self.sweep.wait()
        filler.unlink()

    def server_(self) -> None:
        assert self.server is not None
        self.server.kill()
        time.sleep(self.rng.uniform(2, 15))
        self.server.start()

    def clock(self) -> None:
        off = self.rng.uniform(-LONGEST_JUMP_S, LONGEST_JUMP_S)
        self.sweep.clock.write_text(f"{off}", encoding="utf-8")


FAULTS = {
    "driver": Chaos.driver,
    "worker": Chaos.worker,
    "node": Chaos.node,
    "ctrl-c": Chaos.ctrl_c,
    "disk": Chaos.disk,
    "server": Chaos.server_,
    "checkpoint": Chaos.checkpoint,
    "clock": Chaos.clock,
}


def _age(path: Path) -> float:
    return path.stat().st_mtime


def fill(filler: Path) -> None:
    """Take all space that is left where `filler` lies."""
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(2**16))
        except OSError:
            return


def disturb(sweep: Sweep, server: Server | None, faults: list[str], rng: random.Random) -> Counter:
    """Run the sweep to its end under the faults; returns how many of each there were."""
    chaos, done = Chaos(sweep, server, rng), Counter()
    for fault in faults:
        if not sweep.wait_for_epochs(rng.randint(1, 3)):
            if sweep.exit_code == 0:
                print(f"the sweep was over before {fault}", file=sys.stderr)
                break
            done["driver ended by itself"] += 1
            sweep.resume()
            sweep.wait_for_epochs(1)
        time.sleep(rng.uniform(0, 1))
        sweep.log.write(f"--- {fault}\n")
        print(f"fault {sum(done.values()) + 1}: {fault}", file=sys.stderr, flush=True)
        FAULTS[fault](chaos)
        done[fault] += 1
        if sweep.exit_code is not None:
            sweep.resume()
    while sweep.wait(1200) != 0 and done["driver ended by itself"] < len(faults):
        done["driver ended by itself"] += 1
        sweep.resume()
    return done


def write_data(root: Path) -> None:
    """Four images to train on and three to validate, of three classes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 3)):
        for folder in ("images", "masks"):
            (root / split / folder).mkdir(parents=True)
        for number in range(count):
            mask = np.kron(rng.integers(0, 3, (5, 6)), np.ones((8, 8), int)).astype(np.uint8)
            image = (mask * 80 + rng.integers(0, 60, mask.shape)).astype(np.uint8)
            for folder, pixels in (("images", np.stack([image] * 3, -1)), ("masks", mask)):
                Image.fromarray(pixels).save(root / split / folder / f"{number}.png")


def run(options: argparse.Namespace, place: Path) -> tuple[Counter, dict[str, int]]:
    """The twin, the disturbed sweep, and what came out of comparing them."""
    from mlflow import MlflowClient

    from benchmarks import verdict
    from sweeps.recipe import load_recipe

    rng = random.Random(options.seed)
    rounds = math.ceil(options.count / len(options.faults))
    faults = (options.faults * rounds)[: options.count]
    rng.shuffle(faults)
    (place / "small.yaml").write_text(RECIPE, encoding="utf-8")
    write_data(place / "data")
    server = Server(place) if "server" in faults else None
    uri = server.uri if server else f"sqlite:///{place / 'mlflow.db'}"
    flags = ["--trials", options.trials, "--epochs", options.epochs]
    disk = place / "disk"
    disk.mkdir()
    mounted = "disk" in faults
    if mounted:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", disk], check=True
        )
    try:
        twin = Sweep(TWIN, place, place / "twin", uri, flags)
        assert twin.wait(3600) == 0, (place / f"{TWIN}.log").read_text(encoding="utf-8")
        sweep = Sweep(NAME, place, disk, uri, flags)
        done = disturb(sweep, server, faults, rng)
        client = MlflowClient(tracking_uri=uri)
        recipe = load_recipe(str(place / "small.yaml"), {"epochs": options.epochs})
        records = (
            verdict.read(client, NAME, sweep.folder),
            verdict.read(client, TWIN, twin.folder),
        )
        return done, verdict.figures(*records, recipe)
    finally:
        if server:
            server.kill()
        if mounted:
            subprocess.run(["umount", "-l", disk], check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=lambda text: text.split(","), default=list(FAULTS))
    parser.add_argument("--count", type=int, default=21)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="leave all files in this new folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        place = options.keep or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        done, figures = run(options, place)
    print("| fault | times |\n|---|---|")
    print("\n".join(f"| {fault} | {count} |" for fault, count in done.items()))
    print("\n| against the undisturbed twin | count |\n|---|---|")
    print("\n".join(f"| {what} | {count} |" for what, count in figures.items()))
    sys.exit(1 if any(figures.values()) else 0)


if __name__ == "__main__":
    main()
