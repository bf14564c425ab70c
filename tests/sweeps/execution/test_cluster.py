"""A sweep on a running cluster: two nodes of pretend GPUs, one of them killed in mid-trial."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sweeps.config.budget import Budget
from sweeps.execution import cluster, placement
from sweeps.execution.cluster import Node, require_cluster
from sweeps.execution.placement import place_on_cluster
from sweeps.state.ledger import Ledger
from tests.support.data_folders import write_folder_dataset
from unetexp.errors import ConfigError, UserError

ROOT = Path(__file__).parents[3]
RECIPE = """
base:
  encoder: {name: resnet18, weights: none}
  augment: {crop_px: 32}
  batch_size: 2
  epochs: 12
space:
  optimizer.lr: {kind: loguniform, low: 1.0e-3, high: 1.0e-2}
budget: {trials: 3}
asha: {enabled: false}
"""
# The nodes live in a process of their own: Ray reads the token's settings once a process.
NODES = """
import sys
from ray.cluster_utils import Cluster
head = {"num_cpus": 0, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=head)
nodes = [cluster.add_node(num_cpus=1, num_gpus=2) for _ in range(2)]
print(cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(nodes.pop(), allow_graceful=False)
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home folder with a token of its own."""
    home = tmp_path_factory.mktemp("home")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("a-token-of-the-tests" * 3)
    return home


@pytest.fixture(scope="module")
def environment(home):
    variables = {**os.environ, "HOME": str(home), "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "token"}
    return variables | {"RAY_USAGE_STATS_ENABLED": "0", "UNETEXP_CACHE": str(home / "cache")}


@pytest.fixture(scope="module")
def nodes(environment):
    """The process that holds the cluster; a line to it kills a node."""
    process = subprocess.Popen(
        [sys.executable, "-c", NODES],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    process.address = process.stdout.readline().strip()
    yield process
    process.stdin.close()
    process.wait(60)


def command(root, address, *more):
    return [
        *(sys.executable, str(ROOT / "sweeps" / "run.py"), str(root / "small.yaml")),
        *("--data", str(root / "data"), "--storage", str(root / "runs"), "--address", address),
        *("--tracking-uri", f"sqlite:///{root}/mlflow.db", *more),
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("cluster")
    (root / "small.yaml").write_text(RECIPE)
    write_folder_dataset(root / "data", splits={"train": 4, "val": 2}, size=(32, 32))
    return root


@pytest.mark.slow
def test_trials_outlive_a_node(nodes, place, environment):
    sweep = subprocess.Popen(
        command(place, nodes.address, "--name", "far"),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    ledger = place / "runs" / "far" / "ledger.jsonl"
    deadline = time.monotonic() + 120
    while not (ledger.exists() and '"epoch": 2' in ledger.read_text()):
        assert time.monotonic() < deadline, "no trial got going"
        assert sweep.poll() is None, sweep.stdout.read()
        time.sleep(0.2)
    nodes.stdin.write("kill\n")
    nodes.stdin.flush()
    output, _ = sweep.communicate(timeout=200)
    assert sweep.returncode == 0, output
    assert "simulated" in output
    assert "node lost" in output
    events = Ledger(ledger, write=False)
    assert [event["reason"] for event in events.of("end")] == ["completed"] * 3
    restarts = list(events.of("restart"))
    assert restarts
    assert {event["cause"] for event in restarts} == {"node_lost"}
    _curves_are_whole(place)
    assert not (place / "runs" / "far" / "ray").exists()
    assert not list((place / "runs" / "far").glob(".shared-*"))


def _curves_are_whole(place):
    client = MlflowClient(tracking_uri=f"sqlite:///{place}/mlflow.db")
    experiment = client.get_experiment_by_name("unetexp").experiment_id
    runs = client.search_runs([experiment], "tags.mlflow.parentRunId LIKE '%'")
    assert len(runs) == 3
    for run in runs:
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "val/miou")
        assert sorted(point.step for point in history) == list(range(1, 13))


@pytest.mark.slow
def test_a_wrong_token_is_told_in_time(nodes, place, environment):
    begun = time.monotonic()
    done = subprocess.run(
        command(place, nodes.address, "--dry-run"),
        env=environment | {"RAY_AUTH_TOKEN": "wrong" * 12},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert time.monotonic() - begun < 25  # 15 s, and the imports on a busy machine
    assert done.returncode == 2, done.stderr
    assert "refuses the token" in done.stderr
    assert "wrongwrong" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("address", "message"),
    [("127.0.0.1:1", "no answer"), ("nowhere", "HOST:PORT"), ("ray://a:1", "HOST:PORT")],
)
def test_no_cluster_is_a_mistake(address, message):
    with pytest.raises(UserError, match=message):
        require_cluster(address)


@pytest.mark.parametrize("package", ["python", "torch", "torchvision", "ray"])
def test_another_version_on_a_node_is_named(package):
    theirs = cluster.installed()
    ours = theirs[package]
    with pytest.raises(UserError) as caught:
        cluster._check_versions("10.0.0.7", theirs | {package: "0.1"})
    for message in ("10.0.0.7", package, ours, "0.1"):
        assert message in str(caught.value)


def test_a_promised_gpu_that_torch_does_not_find_is_a_mistake():
    nodes = (Node("a", "10.0.0.1", 8, 2, 2), Node("b", "10.0.0.2", 8, 2, 0))
    with pytest.raises(UserError, match=r"10\.0\.0\.2: Ray offers 2"):
        cluster._check_gpus(nodes)
    cluster._check_gpus(nodes[:1])


class TestPlacement:
    real = (Node("h", "10.0.0.1", 0, 0, 0), Node("a", "10.0.0.2", 16, 4, 4))
    uneven = (*real, Node("b", "10.0.0.3", 4, 2, 2))

    def test_all_gpus_are_used_and_a_trial_fits_on_every_node(self):
        placed = place_on_cluster(Budget(), None, None, self.uneven)
        assert (placed.gpus, placed.max_concurrent, placed.device) == (6, 6, "cuda")
        assert placed.cpus_per_trial == 2
        assert "2 nodes" in placed.describe()

    def test_half_gpus_make_twice_the_slots(self):
        placed = place_on_cluster(Budget(gpus_per_trial=0.5), 4, None, self.uneven)
        assert placed.max_concurrent == 8

    def test_without_gpus_each_node_takes_trials_on_its_cores(self):
        placed = place_on_cluster(Budget(), 0, None, self.uneven)
        assert (placed.gpus, placed.max_concurrent, placed.device) == (0, 4, "cpu")

    def test_pretend_gpus_are_said_to_be(self):
        nodes = tuple(Node(name, name, 2, 2, 0) for name in "ab")
        placed = place_on_cluster(Budget(), None, None, nodes)
        assert placed.simulated
        assert placed.device == "cpu"
        assert placed.cpus_per_trial == 1

    @pytest.mark.parametrize(
        ("budget", "gpus", "simulated", "message"),
        [
            (Budget(), 7, None, "offer 6"),
            (Budget(), None, 2, "real"),
            (Budget(cpus_per_trial=32), None, None, "16 cores"),
        ],
    )
    def test_what_does_not_fit_is_a_mistake(self, budget, gpus, simulated, message):
        with pytest.raises(ConfigError, match=message):
            place_on_cluster(budget, gpus, simulated, self.uneven)

    def test_gpus_on_a_node_without_cores_are_of_no_use(self):
        with pytest.raises(ConfigError, match="no node"):
            place_on_cluster(Budget(), None, None, (Node("a", "10.0.0.1", 0, 2, 2),))

    @pytest.mark.parametrize(
        "budget",
        [
            Budget(),
            Budget(gpus_per_trial=0.5),
            Budget(cpus_per_trial=8),
            Budget(max_concurrent=1),
            Budget(max_concurrent=3, cpus_per_trial=2),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("gpus", [None, 0, 2])
    def test_this_machine_is_a_cluster_of_one(self, budget, gpus, monkeypatch):
        monkeypatch.setattr(placement, "available_cores", lambda: 16)
        monkeypatch.setattr(placement.torch.cuda, "device_count", lambda: 4)
        there = place_on_cluster(budget, gpus, None, self.real[1:])
        assert placement.place(budget, gpus, None) == there
        assert there.cpus_per_trial * there.max_concurrent <= 16

    def test_fewer_trials_than_there_is_room_for_get_more_cores_each(self):
        placed = place_on_cluster(Budget(max_concurrent=2), None, None, self.uneven)
        assert (placed.max_concurrent, placed.cpus_per_trial) == (2, 4)  # fits on both nodes
