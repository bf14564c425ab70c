"""What there is to compute on, and what a trial gets of it."""

from __future__ import annotations

import math
import platform
from dataclasses import dataclass

import torch

from sweeps.config.budget import Budget
from sweeps.execution.cluster import Node
from unetexp.errors import ConfigError
from unetexp.machine import available_cores as available_cores
from unetexp.machine import total_memory_bytes

_MAX_LOADER_WORKERS = 4
_COORDINATION_CPU = 0.01  # asked by a trial that only waits for its ranks
_CPU_TRIALS_AT_ONCE = 2  # two trials of one thread outrun one of two; more of them learn less


@dataclass(frozen=True)
class Placement:
    """How trials share the machine."""

    gpus: float  # what Ray is told there is
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
    def ranks(self) -> int:
        """Processes that train one trial together, each on a GPU of its own."""
        return max(1, int(self.gpus_per_trial))

    @property
    def threads(self) -> int:
        """Threads that a process of a trial computes with."""
        return max(1, math.floor(self.cpus_per_trial / self.ranks))

    @property
    def loader_workers(self) -> int:
        """Processes that cut windows; on the CPU training itself needs the cores."""
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
        share = f", {self.ranks} GPUs a trial" if self.ranks > 1 else ""
        return f"{trials} at once {where}{share}, {self.threads} CPU threads each"


def place(budget: Budget, gpus: int | None, simulate_gpus: int | None) -> Placement:
    """Work out the placement; ConfigError for more GPUs than there are or shares that do not fit.

    `gpus` None takes all there are, 0 the CPU; `simulate_gpus` stands in for it.
    """
    cores = available_cores()
    there = require_gpus_here(gpus if simulate_gpus is None else None)
    count = simulate_gpus if simulate_gpus is not None else (there if gpus is None else gpus)
    if budget.cpus_per_trial is not None and budget.cpus_per_trial > cores:
        raise ConfigError(f"cpus_per_trial is {budget.cpus_per_trial:g}: there are {cores} cores.")
    _require_gpus(budget, count)
    if count:
        slots = _slots_of(budget, count)
    elif budget.cpus_per_trial is not None:
        slots = math.floor(cores / budget.cpus_per_trial)
    else:
        slots = budget.max_concurrent or min(cores, _CPU_TRIALS_AT_ONCE)
    slots = min(slots, budget.max_concurrent or slots)
    share = budget.cpus_per_trial or _even_share(cores, slots)
    simulated = simulate_gpus is not None
    if simulated:
        share = min(share, _even_share(cores, slots))  # all of them must really run at once
    return Placement(count, cores, budget.gpus_per_trial if count else 0, share, slots, simulated)


def require_gpus_here(asked: int | None) -> int:
    """How many GPUs this machine has; ConfigError where more are `asked` for."""
    there = torch.cuda.device_count()
    if asked is not None and asked > there:
        raise ConfigError(
            f"--gpus {asked}: this machine has {there}. Ask for at most {there}"
            + ("" if there else " (0 is the CPU)")
            + ", or rehearse with --simulate-gpus."
        )
    return there


def _require_gpus(budget: Budget, gpus: int) -> None:
    if budget.ranks > max(gpus, 1):
        raise ConfigError(
            f"gpus_per_trial is {budget.gpus_per_trial:g}, and the sweep has {gpus} GPUs. Lower "
            f"it, or rehearse with --simulate-gpus {budget.ranks} or more."
        )


def place_on_cluster(
    budget: Budget, gpus: int | None, simulate_gpus: int | None, nodes: tuple[Node, ...]
) -> Placement:
    """As `place`, on the nodes of a cluster; what a trial gets is to be had on each of them.

    GPUs that no torch finds are pretended: trials then run on the CPU and the sweep is simulated.
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
    _require_gpus(budget, count)
    hosts = [node for node in nodes if node.takes_trials and (node.gpus or not count)]
    wanted = budget.cpus_per_trial
    if wanted is not None and wanted > (most := max((node.cpus for node in hosts), default=0)):
        raise ConfigError(f"cpus_per_trial is {wanted:g}: the largest node has {most} cores.")
    slots = {node.id: _slots(budget, node, on_gpu=bool(count)) for node in hosts}
    hosts = [node for node in hosts if slots[node.id]]
    if not hosts:
        raise ConfigError(
            "no node of the cluster has the GPUs and the cores that a trial asks for."
        )
    at_once = min(sum(slots.values()), _slots_of(budget, count) if count else sum(slots.values()))
    share = wanted or min(_even_share(node.cpus, slots[node.id]) for node in hosts)
    return Placement(
        count,
        sum(node.cpus for node in nodes),
        budget.gpus_per_trial if count else 0,
        share,
        min(at_once, budget.max_concurrent or at_once),
        simulated and bool(count),
        len(hosts),
    )


def _slots(budget: Budget, node: Node, *, on_gpu: bool) -> int:
    """Trials that a node runs at once."""
    by_cores = (
        min(node.cpus, _CPU_TRIALS_AT_ONCE)
        if budget.cpus_per_trial is None
        else math.floor(node.cpus / budget.cpus_per_trial)
    )
    if not on_gpu:
        return by_cores
    by_gpus = _slots_of(budget, node.gpus)
    return by_gpus if budget.cpus_per_trial is None else min(by_gpus, by_cores)


def _slots_of(budget: Budget, gpus: int) -> int:
    """Trials that `gpus` GPUs of one node hold."""
    share = budget.gpus_per_trial
    return gpus * math.floor(1 / share + 1e-9) if share <= 1 else math.floor(gpus / share)


def _even_share(cores: int, slots: int) -> float:
    share = cores / slots
    return float(math.floor(share)) if share >= 1 else math.floor(share * 100) / 100


def hardware_summary() -> dict[str, str]:
    """The machine in words, for the record."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "hardware.host": platform.node(),
        "hardware.cpu": f"{available_cores()} cores, {platform.machine()}",
        "hardware.memory_gib": f"{total_memory_bytes() / 2**30:.1f}",
        "hardware.gpus": ", ".join(gpus) or "none",
    }
