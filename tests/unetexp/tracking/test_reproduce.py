"""`unetexp reproduce`: a recorded run trained again, and what it refuses."""

import re
from contextlib import contextmanager

import pytest
import torch
from typer.testing import CliRunner

from sweeps.tracking.store import open_store
from sweeps.tracking.tracker import Tracker
from tests.support.data_folders import write_folder_dataset
from unetexp.cli.main import app
from unetexp.data import open_dataset
from unetexp.tracking.recorded_run import RecordedRun
from unetexp.tracking.reproduce import config_again, differences
from unetexp.training.config import decode_config
from unetexp.training.experiment import Experiment, best_figures

EPOCHS = 2


@contextmanager
def one_thread():
    """Torch with one thread in the block, and after it with as many as before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A store with trials of one training: (its uri, run ids by what the trial is, data, metrics).

    `full` and `stopped` are true, the second after an epoch; `altered` has another mIoU, as has
    `elsewhere` with another CPU, and `far` by a lot; `bare` has no configuration, `open` has not
    ended; `sweep` is the parent.
    """
    place = tmp_path_factory.mktemp("reproduce")
    root = write_folder_dataset(place / "data", {"train": 4, "val": 2})
    config = decode_config(
        {
            "data": {"kind": "folder", "root": str(root)},
            "encoder": {"name": "resnet18", "weights": "none"},
            "augment": {"crop_px": 32},
            "epochs": EPOCHS,
            "batch_size": 4,
        }
    )
    data = open_dataset(config.data)
    # as after an out-of-memory error: the configuration still says one micro-batch
    with one_thread():
        experiment = Experiment(config, data, place / "run", torch.device("cpu"), accumulation=2)
        epochs = [report.metrics for report in experiment.run()]
    machine = best_figures(place / "run")["machine"]

    uri = f"sqlite:///{place}/mlflow.db"
    tracker = Tracker(open_store(uri))
    parent = tracker.start_sweep("s", storage="-", tags={"data.fingerprint": data.fingerprint})
    runs = {"sweep": parent}

    def trial(name, metrics, reason="completed", machine=machine):
        runs[name] = tracker.start_trial(name, f"s-{name}", {"seed": 0})
        for epoch, values in enumerate(metrics, start=1):
            tracker.log_epoch(name, epoch, {**values, "system/micro_batch": 2})
        if metrics:
            tracker.log_artifacts(name, place / "run/config.yaml")
            tracker.log_machine(name, machine)
        if reason:
            tracker.end_trial(name, reason)

    slightly = [epochs[0] | {"val/miou": epochs[0]["val/miou"] + 1e-9}]
    widely = [epochs[0] | {"val/miou": epochs[0]["val/miou"] + 0.3}]
    other = {**machine, "cpu": "Abacus"}
    trial("full", epochs)
    trial("stopped", epochs[:1], "asha")
    trial("altered", slightly, "asha")
    trial("elsewhere", slightly, "asha", other)
    trial("far", widely, "asha", other)
    trial("bare", [], "error")
    trial("open", epochs, None)
    return uri, runs, root, epochs


@pytest.fixture
def reproduce(recorded, tmp_path):
    uri, runs, _, _ = recorded

    def run(name, *more):
        arguments = ["--tracking-uri", uri, "--out", tmp_path / "out", *more]
        with one_thread():
            torch.set_num_threads(2)  # the command must use as many as the run had
            return CliRunner().invoke(app, ["reproduce", runs[name], *map(str, arguments)])

    return run


def test_the_same_run_on_the_same_cpu_agrees_to_the_bit(reproduce, tmp_path):
    result = reproduce("full")
    assert result.exit_code == 0, result.output
    assert "to the bit" in result.output and "not to the bit" not in result.output
    assert result.output.count("the same") >= EPOCHS
    assert (tmp_path / "out/best/model.safetensors").is_file()
    assert not list((tmp_path / "out").glob("epoch-*"))


def test_a_stopped_run_is_trained_as_far_as_it_came_on_the_whole_schedule(reproduce):
    result = reproduce("stopped")
    assert result.exit_code == 0, result.output
    assert f"1 of {EPOCHS} epochs, ended as asha" in result.output
    assert "epoch 1/1" in result.output and "epoch 2" not in result.output


def test_the_last_bit_counts_on_the_same_cpu(reproduce):
    result = reproduce("altered")
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert re.search(r"do not agree to the bit:\s+epoch 1 val/miou: 0\.\d+ recorded", result.output)


def test_elsewhere_a_tolerance_is_stated(reproduce):
    result = reproduce("elsewhere")
    assert result.exit_code == 0, result.output
    assert "the CPU was Abacus" in result.output and "within 0.05" in result.output


def test_elsewhere_too_much_is_too_much(reproduce):
    result = reproduce("far")
    assert result.exit_code == 1 and "do not agree within 0.05" in result.output


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sweep", "one of its trials"),
        ("bare", "no config.yaml: it ended as error"),
        ("open", "has not ended"),
    ],
)
def test_what_cannot_be_trained_again_is_refused_with_the_reason(
    reproduce, tmp_path, name, message
):
    result = reproduce(name)
    assert result.exit_code == 2 and message in result.output
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_not_there_is_a_mistake(recorded):
    arguments = ["reproduce", "0" * 32, "--tracking-uri", recorded[0]]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and "no run" in result.output


def test_other_data_is_refused(reproduce, tmp_path):
    other = write_folder_dataset(tmp_path / "other", {"train": 4, "val": 2}, seed=1)
    result = reproduce("full", "--data", other)
    assert result.exit_code == 2 and "fingerprint" in result.output
    assert not (tmp_path / "out").exists()


def test_the_same_data_elsewhere_is_the_same_data(recorded, reproduce, tmp_path):
    for path in recorded[2].rglob("*.png"):
        copy = tmp_path / "moved" / path.relative_to(recorded[2])
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    result = reproduce("stopped", "--data", tmp_path / "moved")
    assert result.exit_code == 0, result.output


def test_a_finished_experiment_is_not_written_over(reproduce, tmp_path):
    (tmp_path / "out/best").mkdir(parents=True)
    (tmp_path / "out/best/config.json").write_text("{}")
    result = reproduce("full")
    assert result.exit_code == 2 and "Choose another folder" in result.output


def test_every_recorded_figure_must_come_out_again():
    recorded = {"val/miou": {1: 0.5, 2: 0.6}, "train/loss": {1: 1.0, 2: 0.9}}
    assert not differences(recorded, recorded | {"more": {1: 0.0}})
    assert not differences(recorded, {"val/miou": {1: 0.52, 2: 0.58}}, tolerance=0.05)
    off = differences(recorded, {"val/miou": {1: 0.5}, "train/loss": {1: 1.1, 2: 0.9}})
    assert [(each.epoch, each.metric) for each in off] == [(1, "train/loss"), (2, "val/miou")]
    assert differences(recorded, {"val/miou": {1: 0.56, 2: float("nan")}}, tolerance=0.05)


def test_a_run_is_trained_again_with_the_settings_that_it_had():
    had = {"precision": "bf16", "memory_format": "contiguous", "compile": "none", "cpu": "Abacus"}
    record = RecordedRun(
        run_id="1",
        name="a trial",
        stop_reason="completed",
        config=decode_config({}),
        fingerprint="",
        history={},
        micro_batches=(8,),
        machine=had,
    )
    config = config_again(record, torch.device("cpu"))
    assert (config.precision, config.memory_format, config.compile) == tuple(had.values())[:3]
