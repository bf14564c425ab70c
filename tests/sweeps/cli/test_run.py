"""The command line's mistakes: one clear message, exit 2, no traceback, nothing half-made."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sweeps.cli.run import app
from tests.support.data_folders import write_folder_dataset
from unetexp.cli.main import app as unetexp_app

runner = CliRunner()


@pytest.fixture
def sweep(tmp_path):
    """Call the command with places of its own, unless the test names one."""

    def call(*arguments):
        flags = [str(argument) for argument in arguments]
        if "--tracking-uri" not in flags:
            flags += ["--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]
        result = runner.invoke(app, [*flags, "--storage", str(tmp_path / "runs")])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quickstrat"], "Did you mean 'quickstart'"),
        (["no/such.yaml"], "there is no such file"),
        (["--set", "encoder.freze=all"], "Did you mean 'freeze'"),
        (["--set", "encoder.freeze=al"], "Choices: none, stem"),
        (["--set", "optimizer.lr"], "PATH=VALUE"),
        (["--set", "optimizer.lr=fast"], "optimizer.lr"),
        (["--set", "epochs=3", "--epochs", "4"], "given twice"),
        (["--gpus", "64"], "this machine has"),
        (["--gpus-per-trial", "2"], "gpus_per_trial"),
        (["--trials", "0"], "trials"),
        (["--epochs", "-1"], "epochs"),
        (["--time-budget", "soon"], "8h"),
        (["--name", "a/b"], "a/b"),
        (["--cpus-per-trial", "999"], "cores"),
        (["folder", "--data", "/no/such/folder"], "/no/such/folder"),
        (["--tracking-uri", "files"], "plain path"),
        (["--delete", "nothing", "--yes"], "nothing"),
    ],
)
def test_a_mistake_is_one_message_and_exit_2(sweep, tmp_path, arguments, message):
    result = sweep(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output.replace("\n", " ")
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_an_unreachable_tracking_server_is_a_mistake(sweep):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    result = sweep("--tracking-uri", f"http://user:secret@127.0.0.1:{port}")
    assert result.exit_code == 2
    assert str(port) in result.output
    assert "secret" not in result.output


def test_unwritable_storage_is_a_mistake(tmp_path):
    (tmp_path / "file").touch()
    write_folder_dataset(tmp_path / "data", splits={"train": 2, "val": 1})
    result = runner.invoke(
        app,
        [
            *("folder", "--data", str(tmp_path / "data"), "--set", "encoder.weights=none"),
            *("--storage", str(tmp_path / "file"), "--tracking-uri", f"sqlite:///{tmp_path}/m.db"),
        ],
    )
    assert result.exit_code == 2, result.output
    assert "--storage" in result.output


def test_a_dry_run_prints_the_plan_and_makes_nothing(sweep, tmp_path):
    result = sweep("--dry-run", "--simulate-gpus", 4, "--time-budget", "8h")
    assert result.exit_code == 0, result.output
    for words in (
        "encoder.freeze: one of",
        "18 trials of 6 epochs",
        "4 trials at once",
        "simulated",
        "Models, for an image of 96 x 96 px",
        "resnet resnet50, slim: 30.5 M parameters, 2.6 GFLOPs, ",
        "timm tf_efficientnet_lite0, slim: 5.4 M parameters, ",
    ):
        assert words in result.output
    assert "when loss.kind is focal" in result.output
    assert not list(tmp_path.iterdir())


class TestUnetexpTrain:
    def test_trains_goes_on_and_refuses_a_finished_folder(self, tmp_path):
        write_folder_dataset(tmp_path / "data", splits={"train": 2, "val": 2}, size=(32, 32))
        arguments = ["train", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
        arguments += ["--set", "encoder.name=resnet18", "--set", "encoder.weights=none"]
        arguments += ["--set", "augment.crop_px=32", "--set", "batch_size=2", "--epochs", "2"]
        result = runner.invoke(unetexp_app, arguments)
        assert result.exit_code == 0, result.output
        assert "epoch 2/2" in result.output
        for name in ("config.yaml", "curves.png", "best/model.safetensors", "best/overlay.png"):
            assert (tmp_path / "out" / name).is_file()
        again = runner.invoke(unetexp_app, arguments)
        assert again.exit_code == 2
        assert "finished experiment" in again.output

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--set", "loss.kind=dise"], "Did you mean 'dice'"),
            (["--data", "/no/such"], "/no/such"),
            (["--set", "encoder.weights=/no/such.pth"], "no such weights file"),
            (["no-such.yaml"], "no-such.yaml"),
        ],
    )
    def test_a_mistake_is_one_message_and_exit_2(self, tmp_path, arguments, message):
        result = runner.invoke(unetexp_app, ["train", "--out", str(tmp_path / "out"), *arguments])
        assert result.exit_code == 2, result.output
        assert message in result.output.replace("\n", " ")
        assert not (tmp_path / "out").exists()


def test_ctrl_c_while_the_command_is_loaded():
    script = Path(__file__).parents[3] / "sweeps" / "run.py"
    command = [sys.executable, "-X", "importtime", str(script), "--list"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        next(line for line in process.stderr if line.split()[-1] == "typer")  # torch comes later
        process.send_signal(signal.SIGINT)
        _, error = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in error
