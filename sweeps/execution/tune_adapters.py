"""Adapters from Ray Tune's extension points to the controller.

The controller makes all decisions and keeps the ledger; Ray places trials on devices, runs them
and restarts them when a worker dies. The worker queue decides which worker a trial gets.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from sweeps.execution.gpu_health import GpuHolder, GpuWatch
from sweeps.execution.worker_failures import (
    PATIENCE_S,
    UNCOUNTED,
    FailureClassifier,
    is_certain,
    last_failure,
)
from sweeps.execution.worker_queue import WorkerQueue
from sweeps.search.controller import SweepController
from sweeps.search.gpu_deaths import Gpu
from sweeps.search.trial_report import REPORT
from sweeps.state.stop_reason import StopReason


class _Adapter:
    """Holds controller and worker queue; Ray's snapshots omit them and are never read."""

    def __init__(self, controller: SweepController, worker_queue: WorkerQueue) -> None:
        super().__init__()
        self.controller, self.worker_queue = controller, worker_queue

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("controller", "worker_queue", "gpus")
        return {n: v for n, v in vars(self).items() if n not in left_out}


class ControllerSearcher(_Adapter, Searcher):
    """Gives Ray the trials that the controller proposes."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.worker_queue.full:
            return None
        trial = self.controller.propose()
        if trial is None:  # a trial that has not ended may be put back
            over = self.controller.halted or not self.controller.running
            return Searcher.FINISHED if over else None
        self.worker_queue.proposed(trial.id)
        # A tree, so that only a worker that trains imports what a config is made of.
        assert trial.config is not None
        return {
            "trial": trial.id,
            "values": dict(trial.values),
            "config": trial.config.tree(),
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: the scheduler and the callback tell the controller."""

    def save(self, checkpoint_path: str) -> None:
        """The ledger holds the search's state; Ray only needs a file to exist."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""


class ControllerScheduler(_Adapter, FIFOScheduler):
    """Tells Ray whether a trial continues, and which one comes next."""

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The newest trial if a worker is free for it; None leaves the others to Ray."""
        trials: list[Trial] = tune_controller.get_trials()
        waits = bool(trials) and trials[-1].status == Trial.PENDING
        return (
            trials[-1]
            if waits and self.worker_queue.takes_over(trials[-1].config["trial"])
            else None
        )

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        action = self._decide(trial, result)
        if action == FIFOScheduler.STOP:
            self.worker_queue.left()
        return action

    def _decide(self, trial: Trial, result: dict[str, Any]) -> str:
        # Without a report the function has returned: its last report has been handled.
        proceed = REPORT in result and self.controller.trial_reported(
            trial.config["trial"], result[REPORT]
        )
        return FIFOScheduler.CONTINUE if proceed else FIFOScheduler.STOP


@dataclass(frozen=True)
class _Death:
    """A worker's death whose cause is not certain yet."""

    trial: Trial
    gpu: Gpu | None  # that it was on
    text: str
    counted: bool
    final: bool  # Ray does not restart the trial
    until: float  # the time of `time.monotonic` at which a crash counts as one


class ControllerCallback(_Adapter, tune.Callback):
    """Tells the controller how trials start, die and end."""

    def __init__(
        self, controller: SweepController, worker_queue: WorkerQueue, gpus_per_trial: float = 1.0
    ) -> None:
        super().__init__(controller, worker_queue)
        self.gpus = GpuWatch(controller, GpuHolder(min(1.0, gpus_per_trial)), gpus_per_trial)
        self.classifier = FailureClassifier()
        self.restarting: set[str] = set()
        self.put_back: Counter[str] = Counter()  # how often each trial was put back
        self.failures: Counter[str] = Counter()  # of each trial, as counted by Ray
        self.deaths: list[_Death] = []  # to be classified

    def on_step_begin(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        self.settle_deaths()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        trial_id = trial.config["trial"]
        self.worker_queue.settled(trial_id)
        self.restarting.discard(trial_id)
        self.controller.trial_started(trial_id)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: Any
    ) -> None:
        self.worker_queue.settled(trial.config["trial"])
        self.gpus.left(trial.config["trial"])
        self.controller.trial_ended(trial.config["trial"], StopReason.INTERRUPTED)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **_: Any,
    ) -> None:
        if REPORT in result:
            self.gpus.heard(trial.config["trial"], result[REPORT])

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        self.gpus.poll()

    def on_experiment_end(self, trials: list[Trial], **_: Any) -> None:
        self.gpus.close()

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self.restarting.add(trial.config["trial"])
        self._note_death(trial, final=False)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        trial_id = trial.config["trial"]
        self.worker_queue.settled(trial_id)
        if self._is_echo(trial):
            self.put_back[trial_id] += 1
            self.controller.trial_put_back(trial_id)
        else:
            self._note_death(trial, final=True)

    def settle_deaths(self, *, at_once: bool = False) -> None:
        """Tell the controller of the deaths whose cause is known; `at_once`: of all deaths.

        A node's death is often known seconds after that of its workers, so a death counts as a
        crash only after a while. Tune's loop keeps running meanwhile.
        """
        waiting, self.deaths = self.deaths, []
        for death in waiting:
            cause = self.classifier.classify(
                death.text,
                (death.trial.last_result or {}).get("node_ip"),
                counted=death.counted,
            )
            if not (at_once or is_certain(cause, death.text) or time.monotonic() >= death.until):
                self.deaths.append(death)
            else:
                self._apply(death, cause)

    def _note_death(self, trial: Trial, *, final: bool) -> None:
        trial_id, failures = trial.config["trial"], trial.run_metadata.num_failures
        counted = failures != self.failures[trial_id]
        self.failures[trial_id] = failures
        until, gpu = time.monotonic() + PATIENCE_S, self.gpus.left(trial_id)
        self.deaths.append(_Death(trial, gpu, last_failure(trial), counted, final, until))
        self.settle_deaths()

    def _apply(self, death: _Death, cause: StopReason) -> None:
        trial_id = death.trial.config["trial"]
        if cause in UNCOUNTED and death.counted:  # it is not the trial's failure
            death.trial.run_metadata.num_failures -= 1
            self.failures[trial_id] -= 1
        if not death.final:
            self.controller.trial_restarted(trial_id, cause)
        elif cause in UNCOUNTED:
            self.controller.trial_restarted(trial_id, cause)
            self.controller.trial_put_back(trial_id)
        else:
            self.controller.trial_ended(trial_id, cause, death.text)
        self.gpus.died(trial_id, death.gpu, cause, death.text)

    def _is_echo(self, trial: Trial) -> bool:
        """Whether Ray fails a trial for the same death for which it already restarts it.

        The death of a free worker that the trial was just given is reported twice: for the worker
        and for the task that it was given.
        """
        trial_id = trial.config["trial"]
        again = self.put_back[trial_id] < trial.max_failures
        return trial_id in self.restarting and trial.should_recover() and again


class ControllerStopper(_Adapter, tune.Stopper):
    """Tells Ray that the whole sweep is over."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.controller.halted
