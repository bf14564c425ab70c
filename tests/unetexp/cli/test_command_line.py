"""Every option of every command: a wrong value is told with what is allowed, and exits with 2."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from sweeps.cli.compare import app as compare_app
from sweeps.cli.promote import app as promote_app
from sweeps.cli.run import app as run_app
from tests.support.promotable import Place, Trial
from unetexp.cli.main import app as unetexp_app

runner = CliRunner()
APPS = {"run": run_app, "compare": compare_app, "promote": promote_app, "unetexp": unetexp_app}

# command -> option or argument -> (what is given, words of the message that say what is allowed).
WRONG = {
    "run": {
        "RECIPE": ("quickstrat", "Did you mean 'quickstart'"),
        "--recipe": ("quickstrat", "Did you mean 'quickstart'"),
        "--gpus": ("many", "a whole number of at least 0"),
        "--gpus-per-trial": ("half", "auto"),
        "--cpus-per-trial": ("two", "a number"),
        "--trials": ("few", "a whole number"),
        "--epochs": ("1.5", "a whole number"),
        "--max-concurrent": ("all", "a whole number"),
        "--data": ("/no/such/folder", "the folder that holds images and masks"),
        "--cache-gb": ("all", "a number of at least 0"),
        "--name": ("a/b", "letters, digits"),
        "--seed": ("random", "a whole number"),
        "--time-budget": ("soon", "8h"),
        "--set": ("epochs=many", "integer"),
        "--tracking-uri": ("ftp://host", "sqlite:///PATH"),
        "--storage": (" ", "give a text"),
        "--address": ("host", "HOST:PORT"),
        "--simulate-gpus": ("0", "a whole number of at least 1"),
        "--resume": ("nothing", "there is no sweep named"),
        "--warm-start": (" ", "a text"),
        "--delete": ("nothing", "there is no sweep named"),
    },
    "compare": {
        "SWEEP": ("othr", "Did you mean 'other'"),
        "--sort": ("best", "Choices: "),
        "--where": ("epochs >", "Allowed: "),
        "--top": ("0", "a whole number of at least 1"),
        "--format": ("cvs", "Did you mean 'csv'"),
        "--out": ("table.xls", ".csv"),
        "--report": ("{root}/small.yaml/report.html", "PATH.html"),
        "--next": ("next.txt", ".yaml"),
        "--tracking-uri": ("files", "sqlite:///PATH"),
    },
    "promote": {
        "SWEEP": ("othr", "Did you mean 'other'"),
        "--run": ("abc", "the last part of its address"),
        "--confirm": ("-1", "a whole number of at least 0"),
        "--epochs": ("0", "a whole number of at least 1"),
        "--seeds": ("0", "a whole number of at least 1"),
        "--max-latency-ms": ("0", "greater than 0"),
        "--split": ("tset", "Did you mean 'test'"),
        "--candidates": ("0", "a whole number of at least 1"),
        "--export": ("onyx", "Choices: onnx-fp32"),
        "--flavor": ("onnx", "this needs --export"),
        "--max-drop": ("-1", "a number from 0 to 100"),
        "--set": ("promotion.max_latency_ms=fast", "number"),
        "--gpus": ("64", "this machine has"),
        "--tracking-uri": ("files", "sqlite:///PATH"),
        "--storage": ("", "give a text"),
    },
    "predict": {
        "MODEL": ("/no/model", "A model is a folder with"),
        "INPUTS": ("/no/images", "no such file or folder"),
        "--out": ("", "a path"),
        "--tile": ("0", "a whole number of at least 1"),
        "--overlap": ("-32", "a whole number of at least 0"),
        "--flavor": ("onyx", "Choices: pytorch"),
        "--device": ("gpu", "Choices: auto, cpu, cuda"),
        "--tracking-uri": ("files", "sqlite:///PATH"),
    },
    "evaluate": {
        "MODEL": ("/no/model", "A model is a folder with"),
        "DATA": ("/no/data", "the folder that holds images and masks"),
        "--split": ("validation", "Choices: train, val, test, all"),
        "--out": ("", "a path"),
        "--without-channel": ("0", "Give one from 1 to"),
        "--worst": ("101", "a whole number from 0 to 100"),
        "--format": ("jsn", "Did you mean 'json'"),
        "--tolerance": ("0", "a number greater than 0"),
        "--outline": ("contour", "Did you mean 'contours'"),
        "--flavor": ("onyx", "Choices: pytorch"),
        "--set": ("data", "PATH=VALUE"),
        "--device": ("meta", "Choices: auto, cpu, cuda"),
        "--tracking-uri": ("files", "sqlite:///PATH"),
    },
    "export": {
        "MODEL": ("/no/model", "A model is a folder with"),
        "--to": ("onx", "Did you mean 'onnx'"),
        "--out": ("model.txt", ".onnx"),
        "--precision": ("fp8", "Choices: fp32, fp16, int8"),
        "--max-drop": ("-1", "a number from 0 to 100"),
        "--calibration-images": ("0", "a whole number of at least 1"),
        "--data": ("/no/data", "the folder that holds images and masks"),
        "--split": ("validation", "Choices: train, val, test, all"),
        "--set": ("data", "PATH=VALUE"),
        "--tracking-uri": ("files", "sqlite:///PATH"),
    },
    "tune": {
        "MODEL": ("/no/model", "A model is a folder with"),
        "--data": ("/no/data", "the folder that holds images and masks"),
        "--split": ("validation", "Choices: train, val, test, all"),
        "--out": ("", "a path"),
        "--set": ("data", "PATH=VALUE"),
        "--device": ("gpu", "Choices: auto, cpu, cuda"),
        "--tracking-uri": ("files", "sqlite:///PATH"),
    },
    "reproduce": {
        "RUN_ID": ("0" * 32, "the last part of its address"),
        "--data": ("", "a text"),
        "--out": ("", "a path"),
        "--device": ("gpu", "Choices: auto, cpu, cuda"),
        "--tracking-uri": ("files", "sqlite:///PATH"),
    },
    "serve": {
        "MODEL": ("/no/model", "A model is a folder with"),
        "--host": ("1.2.3.4", "cannot listen there"),
        "--port": ("70000", "a whole number from 0 to 65535"),
        "--max-mb": ("0", "a number from 0.001 to 1000"),
        "--max-pixels": ("0", "a whole number from 1 to 67108864"),
        "--batch-size": ("0", "a whole number from 1 to 256"),
        "--batch-wait-ms": ("-1", "a number from 0 to 1000"),
        "--queue": ("none", "a whole number from 1 to 10000"),
        "--threads": ("0", "a whole number from 1 to 1024"),
        "--host-name": ("http://example.org", "without http://"),
        "--flavor": ("onyx", "Choices: pytorch"),
        "--device": ("gpu", "Choices: auto, cpu, cuda"),
        "--tracking-uri": ("files", "sqlite:///PATH"),
    },
    "train": {
        "CONFIG": ("no-such.yaml", "cannot be read as YAML"),
        "--data": ("/no/such", "the folder that holds images and masks"),
        "--epochs": ("many", "a whole number"),
        "--out": ("", "a path"),
        "--cache-gb": ("-1", "a number of at least 0"),
        "--set": ("loss.kind=dise", "Did you mean 'dice'"),
        "--device": ("cuda:", "Choices: auto, cpu, cuda"),
    },
}
# What else can be wrong with a value.
MORE = [
    ("run", "--gpus", "-1", "a whole number of at least 0"),
    ("run", "--gpus", "1e3", "a whole number of at least 0"),
    ("run", "--gpus", "64", "this machine has"),
    ("run", "--gpus-per-trial", "1.5", "whole number"),
    ("run", "--gpus-per-trial", "nan", "finite"),
    ("run", "--gpus-per-trial", "0", "greater than 0"),
    ("run", "--gpus-per-trial", "[", "auto"),
    ("run", "--cpus-per-trial", "nan", "finite"),
    ("run", "--cpus-per-trial", "inf", "finite"),
    ("run", "--cpus-per-trial", "0", "greater than 0"),
    ("run", "--trials", "0", "greater than or equal to 1"),
    ("run", "--trials", "-3", "greater than or equal to 1"),
    ("run", "--epochs", "100001", "less than or equal to 100000"),
    ("run", "--max-concurrent", "0", "greater than or equal to 1"),
    ("run", "--seed", "-1", "greater than or equal to 0"),
    ("run", "--time-budget", "0s", "45m"),
    ("run", "--time-budget", "8", "8h"),
    ("run", "--set", "epochs", "PATH=VALUE"),
    ("run", "--set", "epochs=[1", "YAML"),
    ("run", "--set", "epochs=2020-01-01", "integer"),
    ("run", "--set", "epochs=nan", "integer"),
    ("run", "--set", "optimizer.lr=.inf", "inf is out of range"),
    ("run", "--set", "encoder.freze=all", "there is no such setting. Did you mean 'freeze'"),
    ("run", "--set", "encoder.freeze=al", "Choices: none, stem"),
    ("run", "--address", "host:port", "HOST:PORT"),
    ("train", "--epochs", "0", "greater than or equal to 1"),
    ("train", "--set", "epochs=null", "integer"),
    ("train", "--device", "cuda:99", "cpu"),
    ("compare", "--where", "colour == 'red'", "there is no column 'colour'. Did you mean"),
    ("compare", "--out", "{root}/small.yaml/table.csv", "cannot be written"),
    ("promote", "--set", "epochs=3", "promotion."),
    ("evaluate", "--tolerance", "nan", "greater than 0"),
    ("promote", "--gpus", "-1", "a whole number of at least 0"),
    ("promote", "--confirm", "7", "at most 2"),
    ("promote", "--epochs", "5", "--train-final"),
    ("promote", "--seeds", "5", "--train-final"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store with the sweep `other`, a model and an image."""
    found = Place(tmp_path_factory.mktemp("place"))
    model = found.model(1)
    found.sweep("other", Trial(0.5, model), Trial(0.4, model))
    return SimpleNamespace(root=found.root, uri=found.uri, model=str(model))


def parameters(command):
    """The values that a command takes, and its flags."""
    click_command = typer.main.get_command(APPS.get(command, unetexp_app))
    found = click_command if command in APPS else click_command.commands[command]
    values, flags = {}, []
    for param in found.params:
        if param.name == "help" or "--help" in param.opts:
            continue
        argument = param.param_type_name == "argument"
        name = (param.metavar or param.name.upper()) if argument else param.opts[-1]
        if not argument and param.is_flag:
            flags.append(name)
        else:
            values[name] = param
    return values, flags


def called(command, place, *given):
    """The outcome of a command that has all else it needs, such as a store and a model."""
    names = [part for part in given if part.startswith("--") or part.isupper()]
    typed = dict(zip(given[::2], given[1::2], strict=False))
    usual = {"--tracking-uri": place.uri}
    arguments = {
        "predict": ["MODEL", "INPUTS"],
        "evaluate": ["MODEL", "DATA"],
        "export": ["MODEL"],
        "tune": ["MODEL"],
        "serve": ["MODEL"],
    }
    known = {"MODEL": place.model, "INPUTS": f"{place.root}/data", "DATA": f"{place.root}/data"}
    if command == "export":
        usual |= {"--to": "onnx", "--out": f"{place.root}/model.onnx"}
    if command == "predict":
        usual["--out"] = f"{place.root}/predictions"
    if command == "serve":
        usual["--port"] = "0"
    if command == "train":
        usual = {"--out": f"{place.root}/trained"}
    if command == "run":
        usual["--storage"] = f"{place.root}/runs"
    if command == "reproduce":
        arguments, known = {"reproduce": ["RUN_ID"]}, {"RUN_ID": "0" * 32}
    line = [] if command in APPS else [command]
    for name in arguments.get(command, [n for n in names if not n.startswith("--")]):
        line.append(typed.get(name, known.get(name)))
    for name, value in (usual | {n: typed[n] for n in names if n.startswith("--")}).items():
        line += [name] if value is None else [name, value]
    return runner.invoke(APPS.get(command, unetexp_app), line)


def refused(result):
    """The one message of a mistake."""
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.output.count("error: ") == 1, result.output
    assert not re.search(r"\b([\w.-]+): \1\b", result.output), "a prefix stands there twice"
    return " ".join(result.output.split())


@pytest.mark.parametrize("command", WRONG)
def test_every_option_has_a_wrong_value_here(command):
    assert set(WRONG[command]) == set(parameters(command)[0])


@pytest.mark.parametrize(
    ("command", "name", "given", "allowed"),
    [(c, n, *wrong) for c, options in WRONG.items() for n, wrong in options.items()] + MORE,
)
def test_a_wrong_value_is_told_with_what_is_allowed(place, command, name, given, allowed):
    given = given.replace("{root}", str(place.root))
    message = refused(called(command, place, name, given))
    assert allowed in message
    path, equals, value = given.partition("=")
    shown = path if not equals or "no such setting" in message else value.removeprefix(".")
    assert shown in message or repr(shown) in message


@pytest.mark.parametrize(
    ("command", "name"), [(c, n) for c in WRONG for n in WRONG[c] if n.startswith("--")]
)
@pytest.mark.parametrize("given", ["", "  "])
def test_an_empty_value_is_a_mistake(place, command, name, given):
    message = refused(called(command, place, name, given))
    # `--report` may stand alone: what follows it and is no path is a sweep.
    assert ("SWEEP" if name == "--report" else name) in message
    assert "''" in message or "' '" in message


@pytest.mark.parametrize(
    ("command", "name"), [(c, n) for c in WRONG for n in WRONG[c] if n.startswith("--")]
)
def test_a_value_left_out_is_a_mistake(command, name):
    if (command, name) == ("compare", "--report"):
        pytest.skip("takes its own place where no path is given")
    line = [name] if command in APPS else [command, name]
    message = refused(runner.invoke(APPS.get(command, unetexp_app), line))
    assert f"{name}: no value is given: give " in message


@pytest.mark.parametrize("command", WRONG)
def test_a_flag_takes_no_value(command):
    for flag in parameters(command)[1]:
        line = [f"{flag}=3"] if command in APPS else [command, f"{flag}=3"]
        message = refused(runner.invoke(APPS.get(command, unetexp_app), line))
        assert f"{flag}=3: this option takes no value" in message


@pytest.mark.parametrize("command", WRONG)
def test_an_unknown_option_is_told_with_the_nearest(command):
    near = next(iter(n for n in reversed(WRONG[command]) if n.startswith("--")))
    line = [near[:-1]] if command in APPS else [command, near[:-1]]
    message = refused(runner.invoke(APPS.get(command, unetexp_app), line))
    assert f"{near[:-1]!r} is not a choice. Did you mean {near!r}?" in message


def test_an_unknown_command_is_told_with_the_nearest():
    message = refused(runner.invoke(unetexp_app, ["trian"]))
    assert "'trian' is not a choice. Did you mean 'train'? Choices: " in message


def test_what_is_missing_or_too_much_is_told():
    assert "MODEL: a value is needed" in refused(runner.invoke(unetexp_app, ["predict"]))
    assert "Allowed: " in refused(runner.invoke(run_app, ["quickstart", "folder"]))


def test_help_is_no_mistake():
    for line in (["--help"], ["train", "--help"]):
        assert runner.invoke(unetexp_app, line).exit_code == 0
    assert "Usage" in runner.invoke(unetexp_app, []).output
    assert runner.invoke(run_app, ["-h"]).exit_code == 0
