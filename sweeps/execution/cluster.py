"""A running Ray cluster: joining it, and asking every node what it is and has.

The dependencies are the nodes' own. Our two packages travel with the job, so that a change here
needs no installation there.
"""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import sweeps
import unetexp
from sweeps.execution.node_versions import MISSING, cuda_devices, installed
from sweeps.execution.ray_security import token_file, use_tokens
from unetexp.errors import UserError
from unetexp.stop_signals import handlers_kept, handlers_put_back, hold, release
from unetexp.tracking.server import reaches

T = TypeVar("T")

_JOIN_S = 9.0  # with the first look at the port, below the 15 s in which a mistake is told
_NODE_ANSWER_S = 120.0  # the first task on a node unpacks our code and imports torch
_PACKAGES = [str(Path(str(package.__file__)).parent) for package in (sweeps, unetexp)]
_PROBE = "import sys, ray; ray.init(address=sys.argv[1], logging_level=50, log_to_driver=False)"


@dataclass(frozen=True)
class Node:
    """A living node, and what it offers to trials."""

    id: str
    name: str  # its address
    cpus: int
    gpus: int
    cuda_gpus: int  # those that torch finds; the others are pretended

    @property
    def takes_trials(self) -> bool:
        return self.cpus > 0


def survey(address: str) -> tuple[Node, ...]:
    """The nodes of the cluster at `address`, after a check that they fit together.

    Raises UserError where the cluster cannot be joined, a node's versions differ from this
    machine's, or Ray promises GPUs that torch does not find there.
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
    if not any(node.takes_trials for node in nodes):
        raise UserError(f"--address {address}: none of the cluster's nodes offers a CPU to trials.")
    return nodes


@contextmanager
def joined(address: str, environment: dict[str, str] | None = None) -> Iterator[None]:
    """Be a driver of the cluster at `address`, our packages and `environment` with the workers.

    Raises UserError within 15 s where that cannot be.
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

    Ray ends the whole process when another thread lets go of an object of Ray's meanwhile, as
    Python's collector may do in any thread; so it collects before, and rests until the end. A
    signal waits for that.
    """
    gc.collect()
    gc.disable()
    hold()
    try:
        with handlers_put_back():
            ray.shutdown()
    finally:
        gc.enable()
        release()


def require_cluster(address: str) -> None:
    """Raise UserError unless a cluster at `address` lets this user in.

    A process of its own tries: where the cluster is not there or refuses the token, Ray's
    `init` goes on for up to 80 s and then ends its process.
    """
    if address != "auto":
        host, separator, port = address.rpartition(":")
        if not (separator and host and port.isdigit() and "//" not in host):
            raise UserError(
                f"--address {address}: write it as HOST:PORT, as `ray start --head` prints it "
                "(port 6379 if you named none), or as auto on a node of the cluster."
            )
        if not reaches(host, int(port)):
            raise UserError(
                f"--address {address}: nobody answers there. Check the address and the firewall, "
                "and start the cluster with: ray start --head --port=6379"
            )
    command = [sys.executable, "-c", _PROBE, address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_JOIN_S, check=False)
        failed, describe = done.returncode != 0, done.stderr
    except subprocess.TimeoutExpired as error:
        failed, describe = True, (error.stderr or b"").decode(errors="replace")
    if failed:
        raise _refused(address, describe)


def _refused(address: str, describe: str) -> UserError:
    if "uthentication" in describe or "AuthToken" in describe:
        why = (
            f"it refuses the token in {token_file()}. Copy the file of that name from the head "
            "node to this machine, or put its content into RAY_AUTH_TOKEN."
        )
    elif "Version mismatch" in describe:
        lines = describe[describe.index("Version mismatch") :].splitlines()
        why = " ".join(line.strip() for line in lines[:7]) + " Install the same versions."
    elif address == "auto":
        why = "no cluster runs on this machine. Start one: ray start --head --port=6379"
    else:
        last = (describe.strip().splitlines() or ["no answer in time"])[-1]
        why = f"it cannot be joined: {last}. Is it the address that `ray start --head` printed?"
    return UserError(f"--address {address}: {why}")


def on_every_node(work: Callable[..., T], *arguments: Any) -> dict[str, T]:
    """Run `work(*arguments)` once on every living node; what it returns, by node id.

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


def _introduce() -> tuple[dict[str, str], int]:
    return installed(), cuda_devices()


def _check_versions(node: str, theirs: dict[str, str]) -> None:
    for package, ours in installed().items():
        if theirs[package] != ours:
            there = "lacks it" if theirs[package] == MISSING else f"has {theirs[package]}"
            raise UserError(
                f"node {node}: {package} is {ours} here and the node {there}. Trials need the "
                f"same version everywhere: install {package} {ours} there, or join from a "
                "machine with the node's."
            )


def _check_gpus(nodes: tuple[Node, ...]) -> None:
    """Either all GPUs are real or, for a rehearsal, none is."""
    real = any(node.cuda_gpus for node in nodes)
    for node in nodes:
        if real and node.gpus > node.cuda_gpus:
            raise UserError(
                f"node {node.name}: Ray offers {node.gpus} GPUs there and torch finds "
                f"{node.cuda_gpus}. Install torch with CUDA and the driver it needs, or start the "
                "node with --num-gpus set to what there is."
            )
