"""Why a trial or a sweep ended: the list of stop reasons, and what follows from each."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

RUNNING = "running"  # used in leaderboards for a trial that has not ended

RunStatus = Literal["FINISHED", "KILLED", "FAILED"]


class StopReason(StrEnum):
    """Why a trial or a sweep ended; the value is its run's tag `stop_reason` in MLflow."""

    COMPLETED = "completed"
    ASHA = "asha"
    TIME_BUDGET = "time_budget"  # sweeps only
    CONVERGED = "converged"  # sweeps only
    INTERRUPTED = "interrupted"
    NAN = "nan"
    OOM = "oom"
    ERROR = "error"
    CRASH = "crash"
    PREEMPTED = "preempted"
    NODE_LOST = "node_lost"
    GPU_SET_ASIDE = "gpu_set_aside"  # of a restart only

    @property
    def label(self) -> str:
        """The reason as the user reads it."""
        return _LABELS.get(self, self.value.replace("_", " "))

    @property
    def mlflow_status(self) -> RunStatus:
        """The status of the MLflow run."""
        return _STATUS.get(self, "FAILED")

    @property
    def failed(self) -> bool:
        return self.mlflow_status == "FAILED"

    @property
    def resumable(self) -> bool:
        """Whether the trial continues when the sweep is resumed."""
        return self is StopReason.INTERRUPTED


_LABELS = {
    StopReason.ASHA: "stopped early",
    StopReason.TIME_BUDGET: "time budget spent",
    StopReason.CONVERGED: "further trials were unlikely to matter",
    StopReason.NAN: "loss not finite",
    StopReason.OOM: "out of memory",
    StopReason.CRASH: "crashed",
}
_STATUS: dict[StopReason, RunStatus] = {
    StopReason.COMPLETED: "FINISHED",
    StopReason.ASHA: "FINISHED",
    StopReason.TIME_BUDGET: "FINISHED",
    StopReason.CONVERGED: "FINISHED",
    StopReason.INTERRUPTED: "KILLED",
}


def label_of(stop_reason: str) -> str:
    """The label of a tag's value; the value itself if another version wrote one unknown here."""
    try:
        return StopReason(stop_reason).label
    except ValueError:
        return stop_reason


def is_failure(stop_reason: str) -> bool:
    """Whether a tag's value is a failure; an unknown value counts as one, `running` does not."""
    try:
        return StopReason(stop_reason).failed
    except ValueError:
        return stop_reason != RUNNING
