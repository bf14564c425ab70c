"""Why a worker died: it crashed, its node was preempted, or its node was lost.

Ray's exception is not enough: when a node dies, the broken connection is often reported seconds
before the node's death, and looks like a crash. So the nodes are checked too.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import LocalRayletDiedError, NodeDiedError, RayTaskError
from ray.tune.experiment import Trial

from sweeps.execution.gpu_health import GpuFaultError, GpuSetAsideError
from sweeps.state.stop_reason import StopReason
from unetexp.tracking.server import reaches

# Not counted as failures of the trial
UNCOUNTED = (StopReason.PREEMPTED, StopReason.GPU_SET_ASIDE)

PATIENCE_S = 3.0  # how long a node may take to go down after its workers
_FRESH_S = 60.0  # a node that died longer ago is not the cause of a death now
_PREEMPTED = ("node was preempted", "AUTOSCALER_DRAIN_PREEMPTED")
_LOST = (
    "its node has died",
    "node was terminated",
    "local raylet died",
    "marked dead",
)
_HEADING = re.compile(r"^Failure # \d+ \(occurred at .*\)$", re.MULTILINE)


def cause_of(error: BaseException | str) -> StopReason:
    """The cause in a Ray exception or its text; CRASH if it names none."""
    if isinstance(error, RayTaskError):
        error = error.as_instanceof_cause()
    text = str(error)
    if GpuSetAsideError.__name__ in text:
        return StopReason.GPU_SET_ASIDE
    if getattr(error, "preempted", False) or any(sign in text for sign in _PREEMPTED):
        return StopReason.PREEMPTED
    lost = isinstance(error, NodeDiedError | LocalRayletDiedError)
    lost = lost or any(sign in text for sign in _LOST)
    return StopReason.NODE_LOST if lost else StopReason.CRASH


def is_certain(cause: StopReason, text: str) -> bool:
    """Whether `cause` is final: no node's death can turn out to be the cause instead."""
    return cause is not StopReason.CRASH or GpuFaultError.__name__ in text


class FailureClassifier:
    """Finds why a worker died, from Ray's message and from the nodes that are gone.

    `nodes` lists all nodes, dead ones included, as `ray.nodes` does.
    """

    def __init__(self, nodes: Callable[[], list[dict[str, Any]]] = ray.nodes) -> None:
        self._nodes = nodes
        self._died: dict[str, float] = {  # node -> when its death was first seen
            node["NodeID"]: time.monotonic() - _FRESH_S for node in nodes() if not node["Alive"]
        }

    def classify(self, text: str, address: str | None, *, counted: bool) -> StopReason:
        """Why a worker on the node at `address` (None: unknown) died just now.

        `text` is Ray's message, `counted` whether Ray counts the death against the trial: it does
        not where its exception says that the node was preempted. `crash` may turn out to be a
        node's loss within `PATIENCE_S`. Does not wait.
        """
        if not counted:
            return StopReason.PREEMPTED
        cause = cause_of(text)
        return cause if is_certain(cause, text) else self._cause_by_nodes(address)

    def _cause_by_nodes(self, address: str | None) -> StopReason:
        for node in self._nodes():
            if address in (None, node["NodeManagerAddress"]) and self._is_freshly_gone(node):
                return _cause_of_node(node)
        return StopReason.CRASH

    def _is_freshly_gone(self, node: dict[str, Any]) -> bool:
        if node["NodeID"] not in self._died:
            # Ray itself notices only after 15 s
            if node["Alive"] and reaches(node["NodeManagerAddress"], node["NodeManagerPort"]):
                return False
            self._died[node["NodeID"]] = time.monotonic()
        return time.monotonic() - self._died[node["NodeID"]] < _FRESH_S


def _cause_of_node(node: dict[str, Any]) -> StopReason:
    cause = cause_of(f"{node.get('DeathReason')} {node.get('DeathReasonMessage')}")
    return cause if cause is StopReason.PREEMPTED else StopReason.NODE_LOST


def last_failure(trial: Trial) -> str:
    """Ray's message about the trial's last failure."""
    if not trial.error_file or not Path(trial.error_file).is_file():
        return "the worker died"
    text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
    return _HEADING.split(text)[-1].strip()
