"""The commands of docs/cluster.md, run in their order on this machine.

Blocks marked `bash` are run, those marked `sh` need machines that are not here. What stays up is
started with its output on a pipe and ended by its process id.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.data_folders import write_folder_dataset

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```", GUIDE, flags=re.MULTILINE | re.DOTALL)


def block(words):
    """The one block that holds `words`."""
    (found,) = [text for text in BLOCKS if words in text]
    return found


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Machine:
    """One machine that plays all of the guide's."""

    def __init__(self, root):
        self.root = root
        self.port, self.tracking_port = free_port(), free_port()
        self.environment = {**os.environ, "HOME": str(root), "RAY_USAGE_STATS_ENABLED": "0"}
        self.environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            self.environment.pop(name, None)

    def script(self, text, **more):
        names = {"HEAD:6379": f"127.0.0.1:{self.port}", "port=6379": f"port={self.port}"}
        names |= {"SHARED": str(self.root), "port 5000": f"port {self.tracking_port}", **more}
        for name, value in names.items():
            text = text.replace(name, value)
        return "set -e\n" + text

    def run(self, text, **more):
        done = subprocess.run(
            ["bash", "-c", self.script(text, **more)],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def up(self, text, **more):
        """The command in the background, in a process group of its own that is ended."""
        process = subprocess.Popen(
            ["bash", "-c", self.script(text, **more)],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(8)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    machine = Machine(tmp_path_factory.mktemp("cluster-guide"))
    write_folder_dataset(machine.root / "data", splits={"train": 4, "val": 2})
    machine.run(block("--generate"))
    return machine


@pytest.fixture(scope="module")
def cluster(machine):
    """The head and one more node; `--block` keeps them in our hands."""
    head = block("--head").replace("--head", "--head --block --num-cpus=1 --num-gpus=0")
    node = block("ray start --address").replace("start", "start --block --num-cpus=2 --num-gpus=2")
    with machine.up(head):
        _await(lambda: "1 node" in _status(machine))
        with machine.up(node):
            _await(lambda: "2.0 GPU" in _status(machine))
            yield machine


def _status(machine):
    try:
        status = machine.run(block("ray status"))
    except AssertionError:
        return ""
    return status + (" 1 node" if "Active" in status else "")


def _await(condition, limit_s=90):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come up"
        time.sleep(0.5)


def test_the_token_is_private(machine):
    token = machine.root / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600


def test_the_plan_counts_the_clusters_gpus(cluster):
    plan = cluster.run(block("--dry-run"))
    assert "2 simulated GPUs" in plan


def test_a_node_is_drained(cluster):
    listing, _, drain = block("drain-node").partition("ray drain-node")
    addresses = cluster.run(listing)
    nodes = [line.split()[0] for line in addresses.splitlines()]
    assert len(nodes) == 2
    cluster.run("export RAY_AUTH_MODE=token\nray drain-node" + drain, NODE_ID=nodes[-1])


def test_the_tracking_server_comes_up(machine):
    """On sqlite: that PostgreSQL is reached is MLflow's own affair."""
    database = "postgresql://USER:PASSWORD@localhost/mlflow"
    text = block("mlflow server").replace(database, f"sqlite:///{machine.root}/server.db")
    assert database in GUIDE
    with machine.up("exec " + text):
        _await(lambda: _answers(f"http://127.0.0.1:{machine.tracking_port}/health"), 120)


def _answers(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


def test_every_block_is_run_by_one_of_these():
    used = ("--generate", "--head", "ray start --address", "ray status", "mlflow server")
    used += ("--dry-run", "drain-node")
    assert len(BLOCKS) == len({block(words) for words in used})
