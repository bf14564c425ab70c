"""What the Dockerfile installs is enough to serve an exported file, small, and holds no torch."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.exported import exported, random_model
from tests.support.serving import encoded, request
from unetexp.data.painting import paint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[3]
LARGEST_MB = 1000
BASE_MB = 130  # python:3.12-slim, unpacked
START_S = 120
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[onnx]'")
    return random_model(tmp_path_factory.mktemp("model"))


def packages(place, runtime):
    """The packages of the image, where pip can have them."""
    line = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(place), runtime]
    more = ["-r", str(ROOT / "requirements-serving.txt"), "-c", str(ROOT / "constraints.txt")]
    done = subprocess.run([*line, *more], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip cannot install them here: {done.stderr[-300:]}")
    return place


def size_mb(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


@pytest.mark.parametrize(("to", "runtime"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_its_packages_serve_an_exported_file(model, tmp_path, to, runtime):
    pytest.importorskip(runtime, reason=f"{runtime} is not installed: pip install -e '.[{to}]'")
    site = packages(tmp_path / "site", runtime)
    names = {path.name.lower() for path in site.iterdir()}
    assert not names & {"torch", "torchvision", "mlflow", "ray", "scipy", "pandas"}
    file = exported(model, to)
    weights = sum(path.stat().st_size for path in file.parent.glob(f"{file.stem}.*")) / 1e6
    assert BASE_MB + size_mb(site) + weights < LARGEST_MB

    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{site}:{ROOT}"}
    command = [sys.executable, "-S", "-m", "unetexp.cli.serve", str(file), "--port", "0"]
    process = subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    try:
        address = announced(process)
        overlay = request(address, "/predict?as=overlay", encoded(IMAGE))
        labels = request(address, "/predict", encoded(IMAGE))
        assert (overlay.status, labels.status) == (200, 200)
        assert (overlay.picture == paint(IMAGE, labels.picture)).all()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143


def announced(process):
    """The address that the server says it has."""
    deadline = time.monotonic() + START_S
    for line in process.stdout:
        if found := re.search(r"http://\S+", line):
            return found[0]
        assert time.monotonic() < deadline
    raise AssertionError("the server ended")


@pytest.mark.skipif(
    shutil.which("docker") is None
    or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode != 0,
    reason="no Docker daemon runs here",
)
def test_the_image_is_built_and_serves(model, tmp_path):
    for name in ("Dockerfile", ".dockerignore", "requirements-serving.txt", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "unetexp", tmp_path / "unetexp")
    shutil.copy(exported(model, "onnx"), tmp_path / "model.onnx")
    build = ["docker", "build", "-q", str(tmp_path)]
    image = subprocess.run(build, capture_output=True, text=True, check=True).stdout.strip()
    run = ["docker", "run", "--rm", "-d", "-p", "127.0.0.1::5001", image]
    container = subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
    try:
        size = ["docker", "image", "inspect", "-f", "{{.Size}}", image]
        inspected = subprocess.run(size, capture_output=True, text=True, check=True).stdout
        assert int(inspected) / 1e6 < LARGEST_MB
        port = ["docker", "port", container, "5001"]
        where = subprocess.run(port, capture_output=True, text=True, check=True).stdout.split()[0]
        deadline = time.monotonic() + START_S
        while True:
            try:
                reply = request(f"http://{where}", "/predict?as=overlay", encoded(IMAGE))
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.5)
        assert (reply.status, reply.picture.shape) == (200, IMAGE.shape)
    finally:
        subprocess.run(["docker", "stop", container], capture_output=True, check=False)
        subprocess.run(["docker", "image", "rm", "-f", image], capture_output=True, check=False)
