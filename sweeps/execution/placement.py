"""Available devices, and the share of them that each trial gets."""

from __future__ import annotations

import math
import platform
from dataclasses import dataclass

import torch

from sweeps.config.budget import Budget
from sweeps.execution.cluster import Node
from unetexp.errors import ConfigError
from unetexp.system.machine import available_cores as available_cores

_MAX_LOADER_WORKERS = 4
_COORDINATION_CPU = 0.01  # requested by a trial that only waits for its ranks
_CPU_TRIALS_AT_ONCE = 2  # two trials of one thread beat one of two; more teach TPE less


@dataclass(frozen=True)
class Placement:
    """How trials share the machine."""

    gpus: float  # the number that Ray is told
    cpus: int
    gpus_per_trial: float
    cpus_per_trial: float
    max_concurrent: int
    simulated: bool
    nodes: int = 1

    @property
    def device(self) -> str:
        return "cuda" if self.gpus and not self.simulated else "cpu"

    @property
    def gpu_share(self) -> float:
        """The part of a GPU that a process of a trial has: 1 for a whole one, or on the CPU."""
        return min(1.0, self.gpus_per_trial) if self.device == "cuda" else 1.0

    @property
    def ranks(self) -> int:
        """Processes that train one trial together, each on its own GPU."""
        return max(1, int(self.gpus_per_trial))

    @property
    def threads(self) -> int:
        """Threads that a process of a trial computes with."""
        return max(1, math.floor(self.cpus_per_trial / self.ranks))

    @property
    def loader_workers(self) -> int:
        """Threads that load crops; 0 on the CPU, where training itself needs the cores."""
        return min(_MAX_LOADER_WORKERS, self.threads) if self.device == "cuda" else 0

    def resources(self) -> dict[str, float]:
        """What Ray reserves for a trial; its ranks, if there are several, reserve their own."""
        if self.ranks > 1:
            return {"CPU": _COORDINATION_CPU}
        return {"CPU": self.cpus_per_trial} | ({"GPU": self.gpus_per_trial} if self.gpus else {})

    def rank_resources(self) -> dict[str, float]:
        """What Ray reserves for each of a trial's ranks."""
        share = (self.cpus_per_trial - _COORDINATION_CPU) / self.ranks
        return {"CPU": math.floor(share * 1000) / 1000, "GPU": 1}

    def describe(self) -> str:
        """The placement in a sentence."""
        if not self.gpus:
            where = f"on the CPU ({self.cpus} cores)"
        elif self.simulated:
            where = f"on {self.gpus:g} simulated GPUs (training runs on {self.cpus} CPU cores)"
        else:
            where = f"on {self.gpus:g} GPU{'s' if self.gpus > 1 else ''}"
        where += f" of {self.nodes} nodes" if self.nodes > 1 else ""
        trials = "1 trial" if self.max_concurrent == 1 else f"{self.max_concurrent} trials"
        share = f", {self.ranks} GPUs per trial" if self.ranks > 1 else ""
        return f"{trials} at once {where}{share}, {self.threads} CPU threads each"


def place(budget: Budget, gpus: int | None, simulate_gpus: int | None) -> Placement:
    """The placement on this machine, a cluster of one node.

    `gpus` None uses all GPUs, 0 the CPU; `simulate_gpus` replaces it. Raises ConfigError for more
    GPUs than the machine has or shares that do not fit.
    """
    if simulate_gpus is not None:
        node = Node("", platform.node(), available_cores(), simulate_gpus, 0)
        return _place(budget, simulate_gpus, (node,), simulated=True)
    there = require_gpus_here(gpus)
    node = Node("", platform.node(), available_cores(), there, there)
    return _place(budget, there if gpus is None else gpus, (node,), simulated=False)


def require_gpus_here(asked: int | None) -> int:
    """How many GPUs this machine has; ConfigError where more are `asked` for."""
    there = torch.cuda.device_count()
    if asked is not None and asked > there:
        raise ConfigError(
            f"--gpus {asked}: this machine has {there}. Ask for at most {there}"
            + ("" if there else " (0 is the CPU)")
            + ", or simulate them with --simulate-gpus."
        )
    return there


def place_on_cluster(
    budget: Budget, gpus: int | None, simulate_gpus: int | None, nodes: tuple[Node, ...]
) -> Placement:
    """As `place`, on the nodes of a cluster.

    Where torch finds none of the GPUs, trials run on the CPU and the sweep is simulated.
    """
    there = sum(node.gpus for node in nodes)
    simulated = bool(there) and not any(node.cuda_gpus for node in nodes)
    asked = gpus if simulate_gpus is None else simulate_gpus
    if asked is not None and asked > there:
        raise ConfigError(
            f"{'--gpus' if simulate_gpus is None else '--simulate-gpus'} {asked}: the cluster's "
            f"nodes offer {there}. Ask for at most {there}, or add nodes (ray start --num-gpus)."
        )
    if simulate_gpus is not None and not simulated:
        raise ConfigError("--simulate-gpus: the cluster's GPUs are real. Leave it out.")
    count = there if asked is None else asked
    return _place(budget, count, nodes, simulated=simulated and bool(count))


def _place(budget: Budget, gpus: int, nodes: tuple[Node, ...], *, simulated: bool) -> Placement:
    """The placement on `gpus` GPUs of the nodes; a trial's share fits on each node that is used."""
    _require_gpus(budget, gpus)
    hosts = [node for node in nodes if node.takes_trials and (node.gpus or not gpus)]
    _require_cores(budget, hosts)
    capacity = {node: _capacity(budget, node, gpus, simulated=simulated) for node in hosts}
    capacity = {node: count for node, count in capacity.items() if count}
    if not capacity:
        raise ConfigError(
            "no node of the cluster has the GPUs and the cores that a trial needs. Lower "
            "gpus_per_trial or cpus_per_trial, or add nodes."
        )
    slots = _slots(budget, capacity, gpus)
    even = min(_even_share(node.cpus, max(count, 1)) for node, count in slots.items())
    wanted = budget.cpus_per_trial or even
    share = min(wanted, even) if simulated else wanted
    return Placement(
        gpus=gpus,
        cpus=sum(node.cpus for node in nodes),
        gpus_per_trial=budget.gpus_per_trial if gpus else 0,
        cpus_per_trial=share,
        max_concurrent=sum(slots.values()),
        simulated=simulated,
        nodes=len(capacity),
    )


def _require_gpus(budget: Budget, gpus: int) -> None:
    if budget.ranks > max(gpus, 1):
        raise ConfigError(
            f"gpus_per_trial is {budget.gpus_per_trial:g}, and the sweep has {gpus} GPUs. Lower "
            f"it, or simulate GPUs with --simulate-gpus {budget.ranks} or more."
        )


def _require_cores(budget: Budget, hosts: list[Node]) -> None:
    wanted, most = budget.cpus_per_trial, max((node.cpus for node in hosts), default=0)
    if wanted is not None and wanted > most:
        where = " on the largest node" if len(hosts) > 1 else ""
        raise ConfigError(f"cpus_per_trial is {wanted:g}: there are {most} cores{where}.")


def _capacity(budget: Budget, node: Node, gpus: int, *, simulated: bool) -> int:
    """Trials that a node can run at once; simulated GPUs share the available cores."""
    if gpus and (simulated or budget.cpus_per_trial is None):
        return _slots_of_gpus(budget, node.gpus)
    if budget.cpus_per_trial is None:
        return min(node.cpus, _CPU_TRIALS_AT_ONCE)
    by_cores = math.floor(node.cpus / budget.cpus_per_trial)
    return min(by_cores, _slots_of_gpus(budget, node.gpus)) if gpus else by_cores


def _slots(budget: Budget, capacity: dict[Node, int], gpus: int) -> dict[Node, int]:
    """Trials that each node runs at once; `capacity` is the number that fits on it.

    If that is more than the sweep may run, the nodes with the fewest cores per trial get fewer. On
    the CPU `max_concurrent` may also be larger, unless `cpus_per_trial` forbids it.
    """
    slots, most = dict(capacity), budget.max_concurrent
    at_most = min(most or math.inf, _slots_of_gpus(budget, gpus) if gpus else math.inf)
    while sum(slots.values()) > at_most:
        slots[min(filter(slots.get, slots), key=lambda node: node.cpus / slots[node])] -= 1
    while most and not gpus and budget.cpus_per_trial is None and sum(slots.values()) < most:
        slots[max(slots, key=lambda node: node.cpus / slots[node])] += 1
    return slots


def _slots_of_gpus(budget: Budget, gpus: int) -> int:
    """Number of trials that fit on `gpus` GPUs of one node."""
    share = budget.gpus_per_trial
    return gpus * math.floor(1 / share + 1e-9) if share <= 1 else math.floor(gpus / share)


def _even_share(cores: int, slots: int) -> float:
    share = cores / slots
    return float(math.floor(share)) if share >= 1 else math.floor(share * 100) / 100
