"""What there is to compute on, and what a trial gets of it."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass

import psutil
import torch

from sweeps.recipe import Budget
from unetexp.errors import ConfigError

_MAX_LOADER_WORKERS = 4
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

    @property
    def device(self) -> str:
        return "cuda" if self.gpus and not self.simulated else "cpu"

    @property
    def threads(self) -> int:
        """Threads that a trial computes with."""
        return max(1, math.floor(self.cpus_per_trial))

    @property
    def loader_workers(self) -> int:
        """Processes that cut windows; on the CPU training itself needs the cores."""
        return min(_MAX_LOADER_WORKERS, self.threads) if self.device == "cuda" else 0

    def resources(self) -> dict[str, float]:
        """What Ray reserves for a trial."""
        return {"CPU": self.cpus_per_trial} | ({"GPU": self.gpus_per_trial} if self.gpus else {})

    def words(self) -> str:
        """The placement in a sentence."""
        if not self.gpus:
            where = f"on the CPU ({self.cpus} cores)"
        elif self.simulated:
            where = f"on {self.gpus:g} simulated GPUs (training runs on {self.cpus} CPU cores)"
        else:
            where = f"on {self.gpus:g} GPU{'s' if self.gpus > 1 else ''}"
        trials = "1 trial" if self.max_concurrent == 1 else f"{self.max_concurrent} trials"
        return f"{trials} at once {where}, {self.threads} CPU threads each"


def place(budget: Budget, gpus: int | None, simulate_gpus: int | None) -> Placement:
    """Work out the placement; ConfigError for more GPUs than there are or shares that do not fit.

    `gpus` None takes all there are, 0 the CPU; `simulate_gpus` stands in for it.
    """
    cores = available_cores()
    there = torch.cuda.device_count()
    if simulate_gpus is None and gpus is not None and gpus > there:
        raise ConfigError(
            f"--gpus {gpus}: this machine has {there}. Ask for at most {there}"
            + ("" if there else " (0 is the CPU)")
            + ", or rehearse with --simulate-gpus."
        )
    count = simulate_gpus if simulate_gpus is not None else (there if gpus is None else gpus)
    if budget.cpus_per_trial is not None and budget.cpus_per_trial > cores:
        raise ConfigError(f"cpus_per_trial is {budget.cpus_per_trial:g}: there are {cores} cores.")
    if count:
        slots = count * math.floor(1 / budget.gpus_per_trial + 1e-9)
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


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _even_share(cores: int, slots: int) -> float:
    share = cores / slots
    return float(math.floor(share)) if share >= 1 else math.floor(share * 100) / 100


def hardware_summary() -> dict[str, str]:
    """The machine in words, for the record."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "hardware.host": platform.node(),
        "hardware.cpu": f"{available_cores()} cores, {platform.machine()}",
        "hardware.memory_gib": f"{psutil.virtual_memory().total / 2**30:.1f}",
        "hardware.gpus": ", ".join(gpus) or "none",
    }
