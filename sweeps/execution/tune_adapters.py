"""Ray Tune's extension points, each handing on to the conductor.

All of a sweep's decisions and records are the conductor's: Ray places trials on devices, runs
them and restarts them when a worker dies. The staging decides which worker a trial gets.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from sweeps.execution.gpu_health import GPU, GpuHolder, GpuWatch
from sweeps.execution.trial import FAILURE, FULL_DISK, SAID
from sweeps.execution.worker_failures import UNCOUNTED, FailureClassifier
from sweeps.execution.worker_queue import WorkerQueue
from sweeps.search.controller import SweepController


class _Adapter:
    """Holds the conductor and the staging; Ray's snapshots leave them out and are never read."""

    def __init__(self, controller: SweepController, worker_queue: WorkerQueue) -> None:
        super().__init__()
        self.controller, self.worker_queue = controller, worker_queue

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("controller", "worker_queue", "gpus")
        return {n: v for n, v in vars(self).items() if n not in left_out}


class ControllerSearcher(_Adapter, Searcher):
    """Where Ray gets its trials from."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.worker_queue.full:
            return None
        proposal = self.controller.propose()
        if proposal is None:  # a trial that has not ended may be put back
            over = self.controller.halted or not self.controller.running
            return Searcher.FINISHED if over else None
        self.worker_queue.proposed(proposal.id)
        config = self.controller.recipe.config(proposal.values)
        return {"trial": proposal.id, "config": config.tree()}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The conductor hears of it through the scheduler and the callback."""

    def save(self, checkpoint_path: str) -> None:
        """The ledger holds the search's state; Ray only wants a file to be there."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""


class ControllerScheduler(_Adapter, FIFOScheduler):
    """Where Ray learns whether a trial goes on, and which one comes next."""

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
        verdict = self._judge(trial, result)
        if verdict == FIFOScheduler.STOP:
            self.worker_queue.left()
        return verdict

    def _judge(self, trial: Trial, result: dict[str, Any]) -> str:
        trial_id = trial.config["trial"]
        if SAID in result:
            self.controller.say(f"trial {trial_id}: {result[SAID]}")
            return FIFOScheduler.CONTINUE
        if GPU in result:  # it has taken its place: `GpuWatch` is told by the callback
            return FIFOScheduler.CONTINUE
        if result.get(FAILURE) == FULL_DISK:
            self.controller.halt(f"a disk is full: {result['error']}")
            self.controller.trial_ended(trial_id, "interrupted", result["error"])
            return FIFOScheduler.STOP
        if FAILURE in result:
            self.controller.trial_ended(trial_id, result[FAILURE], result["error"])
            return FIFOScheduler.STOP
        if "epoch" not in result:  # the function returned: its last report has been judged
            return FIFOScheduler.STOP
        metrics = {name: result[name] for name in result if name == "epoch" or "/" in name}
        metrics = {n: v for n, v in metrics.items() if not n.startswith(("config/", "perf/"))}
        if self.controller.epoch_finished(trial_id, metrics):
            return FIFOScheduler.CONTINUE
        self.controller.trial_ended(trial_id, "completed")
        return FIFOScheduler.STOP


class ControllerCallback(_Adapter, tune.Callback):
    """Where Ray tells how trials start, die and end."""

    def __init__(
        self, controller: SweepController, worker_queue: WorkerQueue, gpus_per_trial: float = 1.0
    ) -> None:
        super().__init__(controller, worker_queue)
        self.gpus = GpuWatch(controller, GpuHolder(min(1.0, gpus_per_trial)), gpus_per_trial)
        self.classifier = FailureClassifier()
        self.restarting: set[str] = set()
        self.put_back: Counter[str] = Counter()  # how often a trial was

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
        self.controller.trial_ended(trial.config["trial"], "interrupted")

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **_: Any,
    ) -> None:
        self.gpus.heard(trial.config["trial"], result)

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        self.gpus.poll()

    def on_experiment_end(self, trials: list[Trial], **_: Any) -> None:
        self.gpus.close()

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        cause, text = self.classifier.classify(trial)
        self.restarting.add(trial.config["trial"])
        self.controller.trial_restarted(trial.config["trial"], cause)
        self.gpus.died(trial.config["trial"], cause, text)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        trial_id = trial.config["trial"]
        self.worker_queue.settled(trial_id)
        if self._is_echo(trial):
            self.put_back[trial_id] += 1
            self.controller.trial_put_back(trial_id)
            return
        cause, text = self.classifier.classify(trial)
        if cause in UNCOUNTED:  # after as many crashes as Ray allows, it counts this as one too
            self.controller.trial_restarted(trial_id, cause)
            self.controller.trial_put_back(trial_id)
        else:
            self.controller.trial_ended(trial_id, cause, text)
        self.gpus.died(trial_id, cause, text)

    def _is_echo(self, trial: Trial) -> bool:
        """Whether Ray gives a trial up over the death for which it restarts it.

        The death of a free worker that the trial was just given is reported twice: as the worker's
        and as that of what it was asked to do.
        """
        trial_id = trial.config["trial"]
        again = self.put_back[trial_id] < trial.max_failures
        return trial_id in self.restarting and trial.should_recover() and again


class ControllerStopper(_Adapter, tune.Stopper):
    """Where Ray learns that the whole sweep is over."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.controller.halted
