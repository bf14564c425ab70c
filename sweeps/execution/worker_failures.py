"""Why a worker died: it crashed, its node was preempted, or its node was lost.

Ray's exception says so only where it knew: when a node goes, the broken connection is often
reported seconds before the node's death is, and reads like a crash. So the nodes are asked too.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import LocalRayletDiedError, NodeDiedError, RayTaskError
from ray.tune.experiment import Trial

from sweeps.execution.gpu_health import GpuFaultError, GpuSetAsideError
from unetexp.tracking.server import reaches

Cause = Literal["crash", "preempted", "node_lost", "gpu_set_aside"]
UNCOUNTED = ("preempted", "gpu_set_aside")  # no failures of the trial

PATIENCE_S = 3.0  # how long a node may take to go down after its workers
_FRESH_S = 60.0  # a node that died longer ago has nothing to do with a death now
_PREEMPTED = ("node was preempted", "AUTOSCALER_DRAIN_PREEMPTED")
_LOST = (
    "its node has died",
    "node was terminated",
    "local raylet died",
    "marked dead",
)
_HEADING = re.compile(r"^Failure # \d+ \(occurred at .*\)$", re.MULTILINE)


def cause_of(error: BaseException | str) -> Cause:
    """The cause that an exception of Ray's, or its text, names; `crash` where it names none."""
    if isinstance(error, RayTaskError):
        error = error.as_instanceof_cause()
    text = str(error)
    if GpuSetAsideError.__name__ in text:
        return "gpu_set_aside"
    if getattr(error, "preempted", False) or any(sign in text for sign in _PREEMPTED):
        return "preempted"
    lost = isinstance(error, NodeDiedError | LocalRayletDiedError)
    return "node_lost" if lost or any(sign in text for sign in _LOST) else "crash"


class FailureClassifier:
    """Tells why a trial's worker died, from Ray's message and from the nodes that are gone.

    `nodes` lists all nodes that ever were, as `ray.nodes` does.
    """

    def __init__(
        self,
        nodes: Callable[[], list[dict[str, Any]]] = ray.nodes,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._nodes, self._patience_s = nodes, patience_s
        self._failures: dict[str, int] = {}  # of each trial, as Ray had counted them
        self._died: dict[str, float] = {  # node -> when its death was first seen
            node["NodeID"]: time.monotonic() - _FRESH_S for node in nodes() if not node["Alive"]
        }

    def classify(self, trial: Trial) -> tuple[Cause, str]:
        """Why the trial's worker died just now, and Ray's words for it.

        What is no failure of the trial is taken off those that Ray counts against it.
        """
        text = last_failure(trial)
        cause = self._cause(text, trial)
        if cause in UNCOUNTED:
            trial.run_metadata.num_failures = self._failures.get(trial.trial_id, 0)
        self._failures[trial.trial_id] = trial.run_metadata.num_failures
        return cause, text

    def _cause(self, text: str, trial: Trial) -> Cause:
        # Ray leaves a death out of its count where its exception says that the node was preempted.
        if trial.run_metadata.num_failures == self._failures.get(trial.trial_id, 0):
            return "preempted"
        cause = cause_of(text)
        if cause != "crash" or GpuFaultError.__name__ in text:
            return cause
        return self._cause_by_nodes((trial.last_result or {}).get("node_ip"))

    def _cause_by_nodes(self, address: str | None) -> Cause:
        """What a node at `address` (None: anywhere) went down of just now, or `crash`."""
        deadline = time.monotonic() + self._patience_s
        while True:
            for node in self._nodes():
                if address in (None, node["NodeManagerAddress"]) and self._is_freshly_gone(node):
                    return _cause_of_node(node)
            if time.monotonic() >= deadline:
                return "crash"
            time.sleep(min(0.25, self._patience_s))

    def _is_freshly_gone(self, node: dict[str, Any]) -> bool:
        if node["NodeID"] not in self._died:
            # Ray itself finds out after a quarter of a minute
            if node["Alive"] and reaches(node["NodeManagerAddress"], node["NodeManagerPort"]):
                return False
            self._died[node["NodeID"]] = time.monotonic()
        return time.monotonic() - self._died[node["NodeID"]] < _FRESH_S


def _cause_of_node(node: dict[str, Any]) -> Cause:
    cause = cause_of(f"{node.get('DeathReason')} {node.get('DeathReasonMessage')}")
    return "preempted" if cause == "preempted" else "node_lost"


def last_failure(trial: Trial) -> str:
    """What Ray wrote down about the trial's last failure."""
    if not trial.error_file or not Path(trial.error_file).is_file():
        return "the worker died"
    text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
    return _HEADING.split(text)[-1].strip()
