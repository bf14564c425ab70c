"""How workers start, and that none is started in vain."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import ray

from benchmarks.scaling.pretend import pretend_trial
from sweeps.config.loading import load_recipe
from sweeps.execution.placement import Placement
from sweeps.execution.ray_session import ray_up
from sweeps.execution.tune_adapters import ControllerCallback
from sweeps.execution.tune_run import run_trials, starting_at_once
from sweeps.execution.worker_queue import WorkerQueue
from sweeps.search.controller import SweepController
from sweeps.state.ledger import Ledger
from sweeps.state.stop_reason import StopReason

TRIALS, AT_ONCE = 150, 16


@pytest.mark.parametrize(
    ("cpus", "max_concurrent", "expected"), [(2, 4, 4), (2, 64, 8), (32, 64, 32), (2, 1, 1)]
)
def test_a_few_start_at_once_and_never_more_than_run(cpus, max_concurrent, expected):
    placement = Placement(max_concurrent, cpus, 1, 1, max_concurrent, simulated=True)
    assert starting_at_once(placement) == expected


def workers_started() -> int:
    """Processes that this Ray has started for trials, whether or not they came to run one."""
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    return len(list(logs.glob("worker-*.err")))


@pytest.mark.slow
def test_short_trials_run_in_the_workers_that_there_are(tmp_path):
    recipe = load_recipe("quickstart", {"budget.trials": TRIALS, "epochs": 1})
    controller = SweepController(recipe, 0, Ledger(tmp_path / "ledger.jsonl"), [])
    placement = Placement(AT_ONCE, AT_ONCE, 1, 1, AT_ONCE, simulated=True)
    with ray_up(placement):
        run_trials(controller, 1, placement, pretend_trial, starting=2)
        started = workers_started()
    assert [trial.stop_reason for trial in controller.trials.values()] == ["completed"] * TRIALS
    assert started <= AT_ONCE


def test_a_trial_whose_worker_dies_before_it_has_begun_is_started_again(tmp_path):
    recipe = load_recipe("quickstart", {"budget.trials": 3, "epochs": 1})
    killed = []

    def kill_the_free_worker(event):
        if event["event"] == "trial" and event["trial"] == "0001":
            for process in psutil.Process().children(recursive=True):
                if process.name().startswith("ray::ImplicitFun"):
                    process.kill()
                    killed.append(process.pid)

    ledger = Ledger(tmp_path / "ledger.jsonl")
    controller = SweepController(recipe, 0, ledger, [kill_the_free_worker])
    placement = Placement(1, 1, 1, 1, 1, simulated=True)
    with ray_up(placement):
        run_trials(controller, 1, placement, pretend_trial)
    assert len(killed) == 1
    assert [trial.stop_reason for trial in controller.trials.values()] == ["completed"] * 3
    assert [(e["trial"], e["cause"]) for e in ledger.of("restart")] == [("0001", "crash")]


@pytest.mark.parametrize(("cause", "ends"), [("preempted", False), ("crash", True)])
def test_a_preemption_ends_no_trial_however_often_it_crashed(tmp_path, monkeypatch, cause, ends):
    class FailureClassifier:
        def classify(self, text, address, *, counted):
            return StopReason(cause)

    monkeypatch.setattr("sweeps.execution.tune_adapters.FailureClassifier", FailureClassifier)
    recipe = load_recipe("quickstart", {"budget.trials": 1})
    controller = SweepController(recipe, 0, Ledger(tmp_path / "ledger.jsonl"), [])
    callback = ControllerCallback(controller, WorkerQueue(1))
    proposed = controller.propose()
    given_up = SimpleNamespace(
        config={"trial": proposed.id},
        max_failures=3,
        should_recover=lambda: False,
        error_file=None,
        last_result={},
        run_metadata=SimpleNamespace(num_failures=3),
    )
    callback.on_trial_start(0, [], given_up)
    callback.on_trial_error(1, [], given_up)
    callback.settle_deaths(at_once=True)
    assert controller.propose() is (None if ends else proposed)
    assert proposed.stop_reason == ("crash" if ends else None)
    assert [e["cause"] for e in controller.ledger.of("restart")] == ([] if ends else ["preempted"])


class TestStaging:
    def test_no_more_wait_for_a_start_than_may_start_at_once(self):
        worker_queue = WorkerQueue(2)
        worker_queue.proposed("0")
        assert not worker_queue.full
        worker_queue.proposed("1")
        assert worker_queue.full
        worker_queue.settled("0")
        assert not worker_queue.full

    def test_a_free_worker_is_for_one_more_trial_however_many_start(self):
        worker_queue = WorkerQueue(1)
        worker_queue.proposed("starting")
        worker_queue.left()
        assert not worker_queue.full
        worker_queue.proposed("next")
        assert worker_queue.full
        assert worker_queue.takes_over("next")
        assert worker_queue.full  # the other one still starts
        worker_queue.proposed("third")
        assert not worker_queue.takes_over("third")  # there is no other free worker

    def test_a_trial_that_has_a_worker_takes_no_other(self):
        worker_queue = WorkerQueue(1)
        worker_queue.proposed("0")
        worker_queue.settled("0")
        worker_queue.left()
        assert not worker_queue.takes_over("0")
