"""A model over HTTP: `unetexp serve`, and `mlflow models serve` with the same model.

    python benchmarks/serve.py FOLDER                          a model, in PyTorch, and MLflow
    python benchmarks/serve.py FOLDER --files m.onnx m.xml     and exported files of it

Each server runs by itself, with one thread a core. PNG files of random smooth pictures go to it:
first one after another (p50 and p99), then from several clients at once (images a second). The
memory is that of the server's processes, after the first tenth of the requests and at their end.
MLflow's server takes them in base64 and answers with nested lists; ours answers with PNG files.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from unetexp.system.machine import available_cores, cpu_model  # noqa: E402

Send = Callable[[http.client.HTTPConnection, bytes], None]
START_S = 300.0
WARM_UP = 5


@dataclass(frozen=True)
class Served:
    """A server: how it is started, and how an image is sent to it."""

    name: str
    command: list[str]  # the port follows
    ready: str  # a path that answers 200
    send: Send


@dataclass(frozen=True)
class Figures:
    """What was measured."""

    p50_ms: float
    p99_ms: float
    images_per_s: float
    requests: int
    memory_before_mb: float
    memory_after_mb: float


def to_ours(connection: http.client.HTTPConnection, png: bytes) -> None:
    """A PNG file in, a label map as PNG out."""
    connection.request("POST", "/predict", png, {"Content-Type": "image/png"})
    answered(connection)


def to_mlflows(connection: http.client.HTTPConnection, png: bytes) -> None:
    """Base64 in JSON in, nested lists out."""
    body = json.dumps({"inputs": base64.b64encode(png).decode()})
    connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
    answered(connection)


def answered(connection: http.client.HTTPConnection) -> None:
    """Read the answer to its end."""
    response = connection.getresponse()
    content = response.read()
    if response.status != 200:
        raise RuntimeError(f"{response.status}: {content[:300]!r}")


def pictures(side_px: int, count: int = 16) -> list[bytes]:
    """PNG files about as large as those of photographs."""
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 256, (side_px // 8, side_px // 8, 3), np.uint8) for _ in range(count)]
    files = []
    for pixels in coarse:
        file = io.BytesIO()
        smooth = Image.fromarray(pixels).resize((side_px, side_px), Image.Resampling.BICUBIC)
        smooth.save(file, "PNG")
        files.append(file.getvalue())
    return files


@contextmanager
def running(served: Served, log: Path) -> Iterator[tuple[psutil.Process, int]]:
    """The server's process and port, once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # MLflow calls uvicorn
    }
    with log.open("w") as file:
        process = psutil.Popen(
            [*served.command, str(port)], env=environment, stdout=file, stderr=file
        )
    try:
        deadline = time.monotonic() + START_S
        while not is_up(port, served.ready):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{served.name} does not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield process, port
    finally:
        for each in [*process.children(recursive=True), process]:
            each.terminate()
        process.wait(30)


def is_up(port: int, path: str) -> bool:
    """Whether the server answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def memory_mb(process: psutil.Process) -> float:
    """Resident memory of the process and its children."""
    each = [process, *process.children(recursive=True)]
    return sum(one.memory_info().rss for one in each) / 1e6


def one_by_one(port: int, send: Send, files: list[bytes], requests: int) -> list[float]:
    """The seconds of each request of a single client."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    times = []
    for number in range(WARM_UP + requests):
        started = time.perf_counter()
        send(connection, files[number % len(files)])
        times.append(time.perf_counter() - started)
    connection.close()
    return times[WARM_UP:]


def at_once(port: int, send: Send, files: list[bytes], requests: int, clients: int) -> float:
    """Images a second that several clients together get answered."""
    left = iter(range(requests))
    lock = threading.Lock()
    failed: list[Exception] = []

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        try:
            while not failed:
                with lock:
                    number = next(left, None)
                if number is None:
                    break
                send(connection, files[number % len(files)])
        except Exception as error:
            failed.append(error)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return requests / (time.perf_counter() - started)


def measured(served: Served, asked: argparse.Namespace, log: Path) -> Figures:
    """The figures of one server."""
    files = pictures(asked.side_px)
    tenth = max(1, asked.requests // 10)
    with running(served, log) as (process, port):
        times = one_by_one(port, served.send, files, asked.sequential)
        at_once(port, served.send, files, tenth, asked.clients)
        before = memory_mb(process)
        speed = at_once(port, served.send, files, asked.requests - tenth, asked.clients)
        after = memory_mb(process)
    p50, p99 = (float(1e3 * q) for q in np.quantile(times, (0.5, 0.99)))
    return Figures(p50, p99, speed, asked.requests, before, after)


def servers(asked: argparse.Namespace, scratch: Path) -> list[Served]:
    """Those that are compared."""
    ours = [sys.executable, "-m", "unetexp.cli.serve"]
    found = [
        Served(
            f"unetexp serve {Path(place).name}", [*ours, str(place), "--port"], "/health", to_ours
        )
        for place in (asked.model, *asked.files)
    ]
    if asked.without_mlflow:
        return found
    from sweeps.promotion.model_package import package

    example = np.zeros((asked.side_px, asked.side_px, 3), np.uint8)
    package(asked.model, scratch / "packaged", run_id="0" * 32, name="model", example=example)
    theirs = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "-m"]
    command = [*theirs, str(scratch / "packaged"), "-h", "127.0.0.1", "-p"]
    return [*found, Served("mlflow models serve", command, "/ping", to_mlflows)]


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="a model's folder")
    parser.add_argument("--files", type=Path, nargs="*", default=[], help="exported files of it")
    parser.add_argument("--side-px", type=int, default=256)
    parser.add_argument("--requests", type=int, default=5000, help="of the clients together")
    parser.add_argument("--sequential", type=int, default=200, help="of one client before")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--without-mlflow", action="store_true")
    asked = parser.parse_args()
    if shutil.which("uvicorn", path=str(Path(sys.executable).parent)) is None:
        parser.error("uvicorn is not installed beside this Python: make setup")
    print(
        f"{asked.side_px} px, {asked.clients} clients, {available_cores()} cores of {cpu_model()}\n"
    )
    print("| server | p50 ms | p99 ms | images/s | requests | memory before, after, MB |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="serve-") as folder:
        for served in servers(asked, Path(folder)):
            f = measured(served, asked, Path(folder) / "log")
            print(
                f"| {served.name} | {f.p50_ms:.0f} | {f.p99_ms:.0f} | {f.images_per_s:.1f} | "
                f"{f.requests} | {f.memory_before_mb:.0f}, {f.memory_after_mb:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
