"""A GPU that failed ends its process; one whose processes keep dying gets no more trials."""

from __future__ import annotations

import os
import signal
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import torch
from ray import tune

from sweeps.config.loading import load_recipe
from sweeps.execution.distributed_trial import as_trial_error, failure_of
from sweeps.execution.gpu_health import (
    GpuFaultError,
    GpuWatch,
    own_gpu,
)
from sweeps.execution.placement import Placement
from sweeps.execution.ray_session import ray_up
from sweeps.execution.trial import TrialContext, run_trial
from sweeps.execution.tune_run import run_trials
from sweeps.search.controller import SweepController
from sweeps.search.gpu_deaths import Gpu
from sweeps.search.trial_report import REPORT, EpochFinished, TrialPlaced
from sweeps.state.ledger import Ledger
from sweeps.state.stop_reason import StopReason
from unetexp.errors import NonFiniteLossError

ILLEGAL = "CUDA error: an illegal memory access was encountered"
ECC = "CUDA error: uncorrectable ECC error encountered"
ONE, TWO = Gpu("0", "10.0.0.1", "ab12"), Gpu("1", "10.0.0.1", "ab12")


@pytest.fixture
def context(tmp_path):
    return TrialContext(SimpleNamespace(), SimpleNamespace(), "cpu", 1, 0)


@pytest.fixture
def config():
    recipe = load_recipe("quickstart", {"epochs": 1})
    return {"trial": "0000", "config": recipe.base.tree()}


@pytest.fixture
def reports(monkeypatch):
    heard = []
    monkeypatch.setattr(tune, "report", heard.append)
    return heard


class Model:
    """Stands in for what a trial has in memory; a cycle, as autograd graphs have."""

    alive: weakref.ref

    def __init__(self):
        self.itself = self
        Model.alive = weakref.ref(self)


def failing(error):
    def train(trial, config, accumulation, plan):
        model = Model()
        raise error(model) if callable(error) else error

    return train


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError(ILLEGAL),
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ],
    ids=str,
)
def test_a_fault_of_the_gpu_is_raised_out_of_the_trial(config, context, reports, error):
    with pytest.raises(GpuFaultError, match=str(error)):
        run_trial(config, context, failing(error))
    assert reports == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.AcceleratorError("CUDA error: out of memory"), "oom"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "oom"),
        (NonFiniteLossError("train/loss became nan"), "nan"),
        (RuntimeError("shapes cannot be multiplied"), "error"),
    ],
    ids=str,
)
def test_nothing_of_a_failed_trial_is_in_memory_when_its_end_is_reported(
    config, context, monkeypatch, error, reason
):
    heard = []
    monkeypatch.setattr(tune, "report", lambda r: heard.append((r, Model.alive() is None)))
    run_trial(config, context, failing(error))
    assert all(released for _, released in heard)
    assert heard[-1][0][REPORT].reason == reason


def test_a_fault_that_only_shows_when_memory_is_released_is_one_too(
    config, context, reports, monkeypatch
):
    def empty():
        raise torch.AcceleratorError(ECC)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", empty)
    with pytest.raises(GpuFaultError, match="ECC"):
        run_trial(config, context, failing(RuntimeError("something else")))
    assert reports == []


def test_a_ranks_fault_is_one_in_the_trial(config, context, reports):
    seen = as_trial_error(failure_of(torch.AcceleratorError(ILLEGAL)))
    with pytest.raises(GpuFaultError, match="illegal memory access") as caught:
        run_trial(config, context, failing(seen))
    assert caught.value is seen


class Holder:
    """Stands in for Ray's side."""

    def __init__(self):
        self.taken, self.retaken = [], []

    def take(self, gpu):
        self.taken.append(gpu)

    def retake(self, gpu):
        self.retaken.append(gpu)


class TestWatch:
    @pytest.fixture
    def controller(self, tmp_path):
        recipe = load_recipe("quickstart", {"budget.trials": 8})
        return SweepController(recipe, 0, Ledger(tmp_path / "ledger.jsonl"), [])

    @pytest.fixture
    def watch(self, controller):
        return GpuWatch(controller, Holder(), count=lambda: 2)

    def crash(self, watch, trial, gpu=ONE, text="The process receives a SIGSEGV.", cause="crash"):
        watch.heard(trial, TrialPlaced(str(gpu)))
        watch.died(trial, watch.left(trial), StopReason(cause), text)

    def said(self, controller):
        return " ".join(event["text"] for event in controller.ledger.of("said"))

    def test_two_crashes_on_a_gpu_set_it_aside_and_it_is_named(self, watch, controller):
        self.crash(watch, "0000")
        self.crash(watch, "0001", TWO)
        assert not watch._holder.taken
        self.crash(watch, "0000")
        assert watch._holder.taken == [ONE]
        assert "GPU 0 of 10.0.0.1 is set aside" in self.said(controller)
        assert [e["gpu"] for e in controller.ledger.of("gpu_set_aside")] == ["GPU 0 of 10.0.0.1"]
        assert not controller.halted

    def test_when_all_are_set_aside_the_sweep_ends(self, watch, controller):
        for trial, gpu in (("0000", ONE), ("0000", ONE), ("0001", TWO), ("0002", TWO)):
            self.crash(watch, trial, gpu)
        assert "no GPU is left to train on" in controller.halt_reason
        assert "GPU 0 of 10.0.0.1" in controller.halt_reason

    @pytest.mark.parametrize(
        ("cause", "text"),
        [
            ("preempted", "the node was preempted"),
            ("node_lost", "its node has died"),
            ("crash", "Task was killed due to the node running low on memory."),
            (
                "crash",
                f"GpuFaultError: ...\n{ONE} failed: CUDA error: device-side assert triggered",
            ),
        ],
    )
    def test_what_is_not_the_gpus_doing_does_not_count(self, watch, cause, text):
        for trial in ("0000", "0001", "0002"):
            self.crash(watch, trial, text=text, cause=cause)
        assert not watch._holder.taken

    def test_deaths_at_one_time_on_a_shared_gpu_are_one(self, controller):
        now = [0.0]
        shared = GpuWatch(controller, Holder(), 0.5, count=lambda: 2, clock=lambda: now[0])
        self.crash(shared, "0000")
        now[0] = 2.0
        self.crash(shared, "0001")  # under MPS the neighbour dies of the same fault
        assert not shared._holder.taken
        now[0] = 60.0
        self.crash(shared, "0001")
        assert shared._holder.taken == [ONE]

    def test_a_process_that_was_given_it_all_the_same_counts_for_nothing(self, watch):
        for _ in range(3):
            text = f"GpuSetAsideError: {ONE} is set aside"
            watch.died("0000", None, StopReason.GPU_SET_ASIDE, text)
        assert not watch._holder.taken
        assert watch._holder.retaken == [ONE] * 3


def trial_with_a_bad_gpu(config, context):
    """Trains nothing, and dies on the GPUs in `plan['bad']` as it is told to."""
    plan = context

    def train(trial, settings, accumulation, context):
        gpu = own_gpu()
        with (Path(plan["log"]) / trial).open("a") as log:
            log.write(f"{gpu.index} {os.getpid()}\n")
        if gpu.index in plan["bad"]:
            if plan["how"] == "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            raise torch.AcceleratorError(ILLEGAL)
        wait_for_a_gpu_to_be_set_aside(plan)  # so that the bad one is the one that is free
        for epoch in (1, 2):
            metrics = {"val/miou": 0.5, "train/loss": 0.5}
            tune.report({REPORT: EpochFinished(epoch, metrics)})

    run_trial(config, plan["context"], train)


def wait_for_a_gpu_to_be_set_aside(plan):
    until = time.monotonic() + 100
    while "gpu_set_aside" not in Path(plan["ledger"]).read_text() and time.monotonic() < until:
        time.sleep(0.1)


def sweep_on(tmp_path, gpus, bad, how, trials):
    recipe = load_recipe("quickstart", {"budget.trials": trials, "epochs": 2})
    controller = SweepController(recipe, 0, Ledger(tmp_path / "ledger.jsonl"), [])
    log = tmp_path / "log"
    log.mkdir()
    context = TrialContext(None, None, "cpu", 1, 0)
    plan = {"log": str(log), "ledger": str(tmp_path / "ledger.jsonl")}
    plan |= {"bad": bad, "how": how, "context": context}
    where = Placement(gpus, gpus, 1, 1, gpus, simulated=True)
    with ray_up(where):
        run_trials(controller, plan, where, trial_with_a_bad_gpu)
        assert ray.cluster_resources()["GPU"] == gpus
    runs = [line.split() for file in sorted(log.iterdir()) for line in file.open()]
    return controller, runs


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fault", "crash"])
def test_a_bad_gpu_is_set_aside_and_every_trial_completes_on_the_other(tmp_path, how):
    controller, runs = sweep_on(tmp_path, 2, ["0"], how, trials=4)
    assert [t.stop_reason for t in controller.trials.values()] == ["completed"] * 4
    on_bad = [process for gpu, process in runs if gpu == "0"]
    assert len(on_bad) == len(set(on_bad)) == 2  # a process each, and then none
    assert [e["gpu"][:5] for e in controller.ledger.of("gpu_set_aside")] == ["GPU 0"]


@pytest.mark.slow
def test_when_no_gpu_is_left_the_sweep_ends_and_says_so(tmp_path):
    controller, runs = sweep_on(tmp_path, 1, ["0"], "fault", trials=5)
    assert "no GPU is left to train on" in controller.halt_reason
    assert "illegal memory access" in controller.halt_reason
    assert len({process for _, process in runs}) == len(runs)
    assert len(controller.trials) == 2
    assert controller.trials["0000"].stop_reason == "crash"
    assert "illegal memory access" in controller.trials["0000"].error
