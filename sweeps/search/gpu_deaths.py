"""Which GPUs are to be set aside, from the deaths of the processes on them."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

DEATHS = 2  # so many processes that die on a GPU have it set aside
_NAMED = re.compile(r"\[GPU (\S+) of (\S+), node (\w+)\]")


@dataclass(frozen=True)
class Gpu:
    """A GPU of one node; `str` is found again by `Gpu.named_in`."""

    index: str
    address: str
    node: str  # Ray's id of it

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
    """Deaths of trials' processes, by GPU, and which GPUs they condemn.

    A single trial, whose configuration may be what kills, costs no more than one GPU and never
    the last one.
    """

    def __init__(self) -> None:
        self.condemned: dict[Gpu, str] = {}  # and the last error there
        self._faults: defaultdict[Gpu, list[str]] = defaultdict(list)  # trials, one a death
        self._crashes: defaultdict[Gpu, list[str]] = defaultdict(list)
        self._costly: set[str] = set()  # trials that a GPU was set aside for

    def died(self, gpu: Gpu, trial: str, error: str, *, fault: bool, last: bool) -> bool:
        """Note a death by a CUDA `fault`, or of an unknown cause; whether the GPU is condemned.

        `last`: no other GPU is left.
        """
        (self._faults if fault else self._crashes)[gpu].append(trial)
        deaths = self._faults[gpu] + self._crashes[gpu]
        one_trial = len(set(deaths)) == 1 and (last or trial in self._costly)
        if gpu in self.condemned or len(deaths) < DEATHS or one_trial:
            return False
        self.condemned[gpu] = error
        self._costly.update(deaths)
        return True

    def worked(self, gpu: Gpu) -> None:
        """An epoch ended there: what crashed before was not the GPU's doing."""
        self._crashes.pop(gpu, None)
