"""Which GPUs to set aside, decided from the deaths of processes on them."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

DEATHS = 2  # a GPU is set aside after this many deaths of processes on it
_NAMED = re.compile(r"\[GPU (\S+) of (\S+), node (\w+)\]")


@dataclass(frozen=True)
class Gpu:
    """A GPU of one node; `Gpu.named_in` parses its `str`."""

    index: str
    address: str
    node: str  # the node's id in Ray

    def __str__(self) -> str:
        return f"[GPU {self.index} of {self.address}, node {self.node}]"

    @property
    def short(self) -> str:
        return f"GPU {self.index} of {self.address}"

    @property
    def marker(self) -> str:
        return f"unetexp set aside {self}"

    @classmethod
    def named_in(cls, text: str) -> Gpu | None:
        """The last GPU that `text` names."""
        found = _NAMED.findall(text)
        return cls(*found[-1]) if found else None


class GpuDeaths:
    """Deaths of trials' processes, by GPU, and the GPUs that are set aside for them.

    A single trial, whose configuration may be the cause, sets aside at most one GPU and never the
    last one.
    """

    def __init__(self) -> None:
        self.set_aside: dict[Gpu, str] = {}  # GPUs set aside, with the last error there
        self._faults: defaultdict[Gpu, list[str]] = defaultdict(list)  # trials, one entry per death
        self._crashes: defaultdict[Gpu, list[str]] = defaultdict(list)
        self._costly: set[str] = set()  # trials that a GPU was set aside for

    def died(self, gpu: Gpu, trial: str, error: str, *, fault: bool, last: bool) -> bool:
        """Record a death by a CUDA `fault` or an unknown cause; True if the GPU is now set aside.

        `last`: no other GPU is left.
        """
        (self._faults if fault else self._crashes)[gpu].append(trial)
        deaths = self._faults[gpu] + self._crashes[gpu]
        one_trial = len(set(deaths)) == 1 and (last or trial in self._costly)
        if gpu in self.set_aside or len(deaths) < DEATHS or one_trial:
            return False
        self.set_aside[gpu] = error
        self._costly.update(deaths)
        return True

    def worked(self, gpu: Gpu) -> None:
        """An epoch ended on the GPU: earlier crashes were not caused by it."""
        self._crashes.pop(gpu, None)
