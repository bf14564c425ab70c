"""A running Ray cluster: joining it, and asking every node for its versions and devices.

Each node has its own dependencies installed. Our two packages are sent with the job, so a change
here needs no installation there.
"""

from __future__ import annotations

import gc
import logging
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import sweeps
import unetexp
from sweeps.execution.ray_security import token_file, use_tokens
from unetexp.errors import UserError
from unetexp.system.core_messages import core_messages_logged
from unetexp.system.stop_signals import handlers_kept, handlers_put_back, hold, release
from unetexp.tracking.server import reaches

T = TypeVar("T")

PACKAGES = ("torch", "torchvision", "ray")  # must have the same version on all nodes
MISSING = "not installed"
_JOIN_S = 9.0  # with the check of the port, below the 15 s in which user errors are reported
_NODE_ANSWER_S = 120.0  # the first task on a node unpacks our code and imports torch
_PACKAGES = [str(Path(str(package.__file__)).parent) for package in (sweeps, unetexp)]
_JOIN = "import sys, ray; ray.init(address=sys.argv[1], logging_level=50, log_to_driver=False)"


@dataclass(frozen=True)
class Node:
    """A live node, and what it offers to trials."""

    id: str
    name: str  # its address
    cpus: int
    gpus: int
    cuda_gpus: int  # those that torch finds; the others are simulated

    @property
    def takes_trials(self) -> bool:
        return self.cpus > 0


def survey(address: str) -> tuple[Node, ...]:
    """The nodes of the cluster at `address`, after a check of their versions and GPUs.

    Raises UserError where the cluster cannot be joined, a node's versions differ from this
    machine's, or Ray offers GPUs that torch does not find there.
    """
    with joined(address):
        answers = on_every_node(_introduce)
        alive = [node for node in ray.nodes() if node["NodeID"] in answers]
    for node in alive:
        _check_versions(node["NodeManagerAddress"], answers[node["NodeID"]][0])
    nodes = tuple(
        Node(
            node["NodeID"],
            node["NodeManagerAddress"],
            int(node["Resources"].get("CPU", 0)),
            int(node["Resources"].get("GPU", 0)),
            answers[node["NodeID"]][1],
        )
        for node in alive
    )
    _check_gpus(nodes)
    for node in nodes:
        if node.gpus and (problem := answers[node.id][2]):
            raise UserError(f"node {node.name}: {problem}")
    if not any(node.takes_trials for node in nodes):
        raise UserError(f"--address {address}: none of the cluster's nodes offers a CPU to trials.")
    return nodes


@contextmanager
def joined(address: str, environment: dict[str, str] | None = None) -> Iterator[None]:
    """Join the cluster at `address`; its workers get our packages and `environment`.

    Raises UserError within 15 s where that is not possible.
    """
    use_tokens()
    require_cluster(address)
    try:
        with handlers_kept():
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"py_modules": _PACKAGES, "env_vars": environment or {}},
            )
        yield
    finally:
        leave()


def leave() -> None:
    """Disconnect from Ray.

    Ray ends the whole process if another thread releases an object of Ray's meanwhile, and
    Python's garbage collector may do so in any thread: it runs before, and is off during shutdown.
    A signal waits for that.
    """
    gc.collect()
    gc.disable()
    hold()
    try:
        with handlers_put_back(), core_messages_logged():
            ray.shutdown()
    finally:
        gc.enable()
        release()


def require_cluster(address: str) -> None:
    """Raise UserError unless a cluster at `address` accepts this user.

    A subprocess tries: where there is no cluster or it refuses the token, Ray's `init` retries
    for up to 80 s and then ends its process.
    """
    if address != "auto":
        host, separator, port = address.rpartition(":")
        if not (separator and host and port.isdigit() and "//" not in host):
            raise UserError(
                f"--address {address}: write it as HOST:PORT, as `ray start --head` prints it "
                "(port 6379 by default), or as auto on a node of the cluster."
            )
        if not reaches(host, int(port)):
            raise UserError(
                f"--address {address}: no answer. Check the address and the firewall, "
                "and start the cluster with: ray start --head --port=6379"
            )
    command = [sys.executable, "-c", _JOIN, address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_JOIN_S, check=False)
        failed, output = done.returncode != 0, done.stderr
    except subprocess.TimeoutExpired as error:
        failed, output = True, (error.stderr or b"").decode(errors="replace")
    if failed:
        raise _refused(address, output)


def _refused(address: str, output: str) -> UserError:
    if "uthentication" in output or "AuthToken" in output:
        why = (
            f"it refuses the token in {token_file()}. Copy the file of that name from the head "
            "node to this machine, or put its content into RAY_AUTH_TOKEN."
        )
    elif "Version mismatch" in output:
        lines = output[output.index("Version mismatch") :].splitlines()
        why = " ".join(line.strip() for line in lines[:7]) + " Install the same versions."
    elif address == "auto":
        why = "no cluster runs on this machine. Start one: ray start --head --port=6379"
    else:
        last = (output.strip().splitlines() or ["no answer in time"])[-1]
        why = f"it cannot be joined: {last}. Use the address that `ray start --head` printed."
    return UserError(f"--address {address}: {why}")


def on_every_node(work: Callable[..., T], *arguments: Any) -> dict[str, T]:
    """Run `work(*arguments)` once on every live node; returns the results by node id.

    `work` must be importable on the nodes. Raises UserError naming the node where it fails.
    """
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    remote = ray.remote(num_cpus=0, max_retries=0)(work)
    pending = {
        node: remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(*arguments)
        for node in nodes
    }
    answers: dict[str, T] = {}
    for node, answer in pending.items():
        try:
            answers[node] = ray.get(answer, timeout=_NODE_ANSWER_S)
        except RayError as error:
            cause = getattr(error, "cause", None) or error
            last = str(cause).strip().splitlines()[-1:] or [type(cause).__name__]
            raise UserError(f"node {node_name(node)}: {last[0]}") from None
    return answers


def node_name(node: str) -> str:
    """A node's address and the start of its id, which `ray list nodes` shows in full."""
    addresses = {each["NodeID"]: each["NodeManagerAddress"] for each in ray.nodes()}
    return f"{addresses.get(node, 'unknown')} ({node[:8]})"


def installed() -> dict[str, str]:
    """Versions of Python (without its patch level) and of `PACKAGES` (without `+cpu`, `+cu130`)."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for package in PACKAGES:
        try:
            found[package] = version(package).partition("+")[0]
        except PackageNotFoundError:
            found[package] = MISSING
    return found


def cuda_devices() -> int:
    """GPUs that torch can compute on here; 0 without torch, which a bare node may lack."""
    try:
        import torch
    except ImportError:
        return 0
    return torch.cuda.device_count()


def _introduce() -> tuple[dict[str, str], int, str]:
    return installed(), cuda_devices(), _gpu_problem()


def _gpu_problem() -> str:
    """Why torch cannot compute on this node's GPUs, or nothing."""
    if installed()["torch"] == MISSING:
        return ""
    from unetexp.compute.device import require_usable_gpus

    try:
        require_usable_gpus()
    except UserError as error:
        return str(error)
    return ""


def _check_versions(node: str, theirs: dict[str, str]) -> None:
    for package, ours in installed().items():
        if theirs[package] != ours:
            there = "does not have it" if theirs[package] == MISSING else f"has {theirs[package]}"
            raise UserError(
                f"node {node}: {package} is {ours} here and the node {there}. Trials need the "
                f"same version everywhere: install {package} {ours} there, or join from a "
                "machine with the node's."
            )


def _check_gpus(nodes: tuple[Node, ...]) -> None:
    """Raise UserError unless all GPUs are real or, for a simulation, none is."""
    real = any(node.cuda_gpus for node in nodes)
    for node in nodes:
        if real and node.gpus > node.cuda_gpus:
            raise UserError(
                f"node {node.name}: Ray offers {node.gpus} GPUs there and torch finds "
                f"{node.cuda_gpus}. Install torch with CUDA and the driver it needs, or start the "
                f"node with --num-gpus={node.cuda_gpus}."
            )
