"""Trials that follow each other in one worker: as alike as if each had a process of its own."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest
import torch
from ray import tune

from sweeps.execution.placement import Placement
from sweeps.execution.trial import TrialContext, run_trial
from sweeps.search.trial_report import REPORT, EpochFinished, TrialFailed, TrialMessage
from sweeps.state.storage import Storage
from tests.support.data_folders import write_folder_dataset
from unetexp.data import open_dataset
from unetexp.models.unet import UNet
from unetexp.training import loop
from unetexp.training.config import decode_config
from unetexp.training.experiment import best_figures


def tree(images: Path, **changes) -> dict:
    return {
        "data": {"kind": "folder", "root": str(images)},
        "encoder": {"name": "resnet18", "weights": "none"},
        "decoder": {"kind": "slim"},
        "augment": {"crop_px": 32},
        "batch_size": 4,
        "epochs": 2,
        **changes,
    }


def run(
    images: Path,
    storage: Path,
    name: str,
    changes: dict,
    device: str = "cpu",
    values: dict | None = None,
    **context,
):
    """Run a trial in this process; returns its reports."""
    config = decode_config(tree(images, **changes))
    data = open_dataset(config.data)
    where = TrialContext(Storage(str(storage)), data, device, 1, 0, **context)
    heard = []
    before, tune.report = tune.report, lambda metrics: heard.append(metrics[REPORT])
    try:
        run_trial({"trial": name, "values": values or {}, "config": config.tree()}, where)
    finally:
        tune.report = before
    return heard


def curve(reports) -> list[dict]:
    """The metrics of each epoch, but for those that measure time or memory."""
    measured = ("time/", "system/")
    return [
        {name: value for name, value in report.metrics.items() if not name.startswith(measured)}
        for report in reports
        if isinstance(report, EpochFinished)
    ]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_folder_dataset(tmp_path_factory.mktemp("data"), {"train": 4, "val": 2}, (32, 40))


@pytest.fixture
def stopped(monkeypatch):
    """Ray's session ends every trial at its first report of an epoch."""

    def report(metrics):
        if isinstance(metrics[REPORT], EpochFinished):
            sys.exit(0)

    monkeypatch.setattr(tune, "report", report)


FIRST = {"seed": 3, "optimizer": {"kind": "adamw", "lr": 0.01}, "precision": "bf16"}
SECOND = {"seed": 5, "encoder": {"name": "resnet18", "weights": "none", "freeze": "all"}}


def test_a_trial_in_a_used_worker_equals_one_in_a_new_process(images, tmp_path):
    run(images, tmp_path, "0000", FIRST)
    here = curve(run(images, tmp_path, "0001", SECOND))
    script = (
        "import json; from pathlib import Path; import tests.sweeps.execution.test_trial as t\n"
        f"images, storage = Path({str(images)!r}), Path({str(tmp_path / 'new')!r})\n"
        "reports = t.run(images, storage, '0001', t.SECOND)\n"
        "print('curve', json.dumps(t.curve(reports)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout.rpartition("curve ")[2])
    assert len(here) == 2
    assert here == there


def test_what_a_trial_changes_in_the_process_is_not_there_for_the_next(images, tmp_path):
    torch.backends.cudnn.benchmark = False
    run(images, tmp_path, "0000", {"epochs": 1})
    assert torch.backends.cudnn.benchmark is False


def context(tmp_path, device="cpu", **settings):
    return TrialContext(Storage(str(tmp_path)), None, device, 1, 0, **settings)


def trial(images):
    return {"trial": "0000", "config": decode_config(tree(images)).tree()}


def test_all_trials_compute_in_one_thread_with_the_threads_of_their_share(
    images, tmp_path, monkeypatch
):
    monkeypatch.setattr(tune, "report", lambda _: None)
    seen = []

    def train(*_):
        seen.append((threading.get_ident(), torch.get_num_threads()))

    for _ in range(3):  # Ray runs each in a new thread
        ray = threading.Thread(target=run_trial, args=[trial(images), context(tmp_path), train])
        ray.start()
        ray.join()
    assert len(set(seen)) == 1
    assert seen[0][1] == 1


def models() -> int:
    return sum(isinstance(thing, UNet) for thing in gc.get_objects())


@pytest.mark.usefixtures("stopped")
def test_a_stopped_trial_leaves_by_rays_exception_and_nothing_in_memory(images, tmp_path):
    before = models()
    config = decode_config(tree(images))
    where = TrialContext(Storage(str(tmp_path)), open_dataset(config.data), "cpu", 1, 0)
    with pytest.raises(SystemExit) as caught:
        run_trial({"trial": "0000", "config": config.tree()}, where)
    assert caught.value.code == 0
    assert models() == before


def test_a_completed_trial_leaves_nothing_in_memory(images, tmp_path):
    before = models()
    run(images, tmp_path, "0000", {"epochs": 1})
    assert models() == before


def test_what_was_imported_is_not_searched_for_garbage_after_every_trial(images, tmp_path):
    run(images, tmp_path, "0000", {"epochs": 1})
    frozen = gc.get_freeze_count()
    assert frozen > 100_000  # torch and Ray alone
    run(images, tmp_path, "0001", {"epochs": 1})
    assert gc.get_freeze_count() <= frozen  # nothing of a trial is kept


def test_the_trace_of_an_error_names_the_line_that_failed(images, tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr(tune, "report", lambda metrics: heard.append(metrics[REPORT]))

    def fails_here(*_):
        raise ValueError("shapes cannot be multiplied")

    run_trial(trial(images), context(tmp_path), fails_here)
    assert isinstance(heard[-1], TrialFailed)
    assert "in fails_here" in heard[-1].error


@pytest.mark.parametrize("graphs", [False, True])
def test_only_cuda_graphs_are_thrown_away_after_a_trial(images, tmp_path, monkeypatch, graphs):
    thrown_away = []
    monkeypatch.setattr(tune, "report", lambda _: None)
    monkeypatch.setattr(torch.compiler, "reset", lambda: thrown_away.append(True))
    if graphs:
        monkeypatch.setitem(sys.modules, "torch._inductor.cudagraph_trees", ModuleType("graphs"))
    run_trial(trial(images), context(tmp_path), lambda *_: None)
    assert thrown_away == [True] * graphs


class TestShare:
    """With CUDA's functions replaced: what a trial asks of its GPU."""

    @pytest.fixture
    def asked(self, monkeypatch):
        calls = []
        for name in ("set_per_process_memory_fraction", "reset_peak_memory_stats"):
            monkeypatch.setattr(
                torch.cuda, name, lambda *given, name=name: calls.append((name, *given))
            )
        monkeypatch.setattr(tune, "report", lambda _: None)
        return calls

    @pytest.mark.parametrize(("share", "limits"), [(0.5, [0.5]), (0.25, [0.25]), (1.0, [])])
    def test_its_part_of_the_memory_and_its_own_peak(self, images, tmp_path, asked, share, limits):
        where = context(tmp_path, "cuda", gpu_share=share)
        run_trial(trial(images), where, lambda *_: asked.append("trains"))
        fractions = [("set_per_process_memory_fraction", limit) for limit in limits]
        assert asked == [*fractions, ("reset_peak_memory_stats",), "trains"]

    def test_a_trial_that_takes_more_goes_on_with_a_smaller_micro_batch(
        self, images, tmp_path, asked, monkeypatch
    ):
        heard, tried = [], []
        monkeypatch.setattr(tune, "report", lambda metrics: heard.append(metrics[REPORT]))

        def train(name, config, accumulation, where):
            tried.append(accumulation)
            if accumulation == 1:
                raise torch.OutOfMemoryError("CUDA out of memory: 50.00% of it is allowed")

        run_trial(trial(images), context(tmp_path, "cuda", gpu_share=0.5), train)
        assert tried == [1, 2]
        assert heard == [TrialMessage("out of memory, continues with micro-batches of 2")]

    def test_nothing_is_asked_on_the_cpu(self, images, tmp_path, asked):
        run_trial(trial(images), context(tmp_path), lambda *_: None)
        assert asked == []

    @pytest.mark.parametrize(
        ("gpus", "share", "simulated", "part"),
        [(2, 0.5, False, 0.5), (2, 1, False, 1), (4, 2, False, 1), (2, 0.5, True, 1), (0, 0, 0, 1)],
    )
    def test_the_part_follows_from_the_placement(self, gpus, share, simulated, part):
        assert Placement(gpus, 8, share, 1, 2, simulated=bool(simulated)).gpu_share == part


def test_a_trial_that_is_not_its_proposal_fails_before_it_trains(images, tmp_path):
    proposed = {"optimizer.lr": 0.01, "seed": 3, "loss.gamma": 2.0}
    (failed,) = run(images, tmp_path, "0000", FIRST | {"seed": 4}, values=proposed)
    assert isinstance(failed, TrialFailed)
    assert failed.reason == "error"
    assert "seed: 3 was proposed, and 4 set; loss.gamma: 2.0 was proposed" in failed.error
    assert "optimizer.lr" not in failed.error


def test_a_trial_that_ignores_a_setting_fails_in_its_first_epoch(images, tmp_path, monkeypatch):
    freeze = loop.freeze_encoder
    monkeypatch.setattr(loop, "freeze_encoder", lambda model, level: freeze(model, "none"))
    (failed,) = run(images, tmp_path, "0000", SECOND)
    assert failed.reason == "error"
    assert failed.error.startswith("a setting is ignored in epoch 1")
    assert "encoder.freeze: all was asked for, and none is in use" in failed.error


def test_what_was_proved_is_recorded_with_the_best_model(images, tmp_path):
    run(images, tmp_path, "0000", FIRST)
    settings = best_figures(tmp_path / "trials" / "0000")["settings"]
    assert "optimizer.lr" in settings["proved"].split(", ")
    assert "batch_norm_images" in settings["not_read"].split(", ")
