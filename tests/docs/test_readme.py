"""What the documents say can be done: examples run, commands parse, settings and paths exist."""

import json
import re
import shlex

import pytest
import typer

from sweeps.cli.compare import app as compare_app
from sweeps.cli.promote import app as promote_app
from sweeps.cli.run import app as sweep_app
from sweeps.config.budget import Asha, Budget, Objective
from sweeps.config.loading import available_recipes, load_recipe
from sweeps.driver.plan import DEFAULT_RECIPE
from sweeps.tracking.store import PROJECT_ROOT as ROOT
from tests.support.data_folders import write_folder_dataset
from unetexp.cli.main import app as unetexp_app
from unetexp.component import components_in
from unetexp.training.config import TrainConfig, decode_config, parse_assignments

README = (ROOT / "README.md").read_text(encoding="utf-8")
SETTINGS = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
DOCUMENTS = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/settings.md")
}
SWEEP_PARSER = typer.main.get_command(sweep_app)
TRAIN_PARSER = typer.main.get_command(unetexp_app)
AFTERWARDS = {
    "python sweeps/compare.py": typer.main.get_command(compare_app),
    "python sweeps/promote.py": typer.main.get_command(promote_app),
    **{f"unetexp {name}": TRAIN_PARSER.commands[name] for name in ("predict", "evaluate")},
    "unetexp reproduce": TRAIN_PARSER.commands["reproduce"],
}


def blocks(language, text=README):
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(start):
    """The shell lines that begin with `start`, without it and without comments."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [line.removeprefix(start).strip() for line in lines if line.startswith(start)]


def parsed(parser, line):
    """The parameters that a command line gives; an unknown option raises."""
    return parser.make_context("command", shlex.split(line)).params


def test_the_python_examples_run(tmp_path, monkeypatch):
    write_folder_dataset(tmp_path / "images", {"train": 5, "val": 2})
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    examples = blocks("python")
    assert len(examples) >= 4
    for example in examples:
        exec(compile(example, "README.md", "exec"), names)


@pytest.mark.parametrize("line", commands("python sweeps/run.py"))
def test_the_sweep_commands_parse_and_fit_their_recipes(line):
    given = parsed(SWEEP_PARSER, line)
    if not given["list_"] and given["delete"] is None:
        assert load_recipe(
            given["recipe"] or DEFAULT_RECIPE, parse_assignments(given["set_"] or []), given["data"]
        )


@pytest.mark.parametrize("line", commands("unetexp train"))
def test_the_train_commands_parse(line):
    given = parsed(TRAIN_PARSER.commands["train"], line)
    assert decode_config({}, parse_assignments(given["set_"]))


@pytest.mark.parametrize("parser", AFTERWARDS)
def test_the_commands_for_what_comes_afterwards_parse(parser):
    lines = commands(parser)
    assert lines
    for line in lines:
        parsed(AFTERWARDS[parser], line)


def test_there_are_commands():
    assert len(commands("python sweeps/run.py")) >= 6
    assert commands("unetexp train")
    assert commands("make sweep") and commands("make test")


def test_the_table_of_options_names_those_there_are():
    options = {name for option in SWEEP_PARSER.params for name in option.opts if name[:1] == "-"}
    shown = set(re.findall(r"^\| .*?\|", README, flags=re.MULTILINE))
    named = {name for cell in shown for name in re.findall(r"`(--?[a-z-]+)", cell)}
    assert named <= options | {"--help", "-h"}
    assert options - named - {"--help", "-h"} <= set(re.findall(r"`(--[a-z-]+)`", README))


def test_every_target_of_make_exists():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for text in DOCUMENTS.values():
        code = re.findall(r"(?:`|^)make ([a-z]+)", text, flags=re.MULTILINE)
        assert set(code) <= set(targets)


def test_the_recipe_example_is_a_recipe_with_every_key(tmp_path):
    (example,) = blocks("yaml")
    file = tmp_path / "example.yaml"
    file.write_text(example, encoding="utf-8")
    recipe = load_recipe(str(file), {})
    assert {dimension.kind for dimension in recipe.space.values()} == {
        *("choice", "uniform", "loguniform", "int")
    }
    keys = set(re.findall(r"(\w+):", example))
    assert keys >= set(type(recipe).model_fields) | {"when"}
    assert keys >= {name for part in (Budget, Asha, Objective) for name in part.model_fields}
    assert keys >= set(TrainConfig.model_fields) - {"seed"}  # --seed gives it


def test_every_recipe_is_named():
    assert set(available_recipes()) <= set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))


def setting_rows(part, prefix=""):
    """(dotted path, default as YAML writes it) of every setting of a part and of those in it."""
    for name, field in part.model_fields.items():
        inner = components_in(field.annotation)
        for one in inner:
            yield from setting_rows(one, f"{prefix}{name}.")
        if inner:
            continue
        default = "needed" if field.is_required() else field.get_default()
        yield f"{prefix}{name}", default if isinstance(default, str) else json.dumps(default)


def test_the_settings_are_documented_with_their_defaults():
    rows = re.findall(r"^\| `([\w.]+)` \| `?([^`|]+?)`? \|", SETTINGS, flags=re.MULTILINE)
    kinds = {row for row in rows if row[0].endswith(".kind")}
    wanted = {row for row in setting_rows(TrainConfig) if not row[0].endswith(".kind")}
    assert set(rows) - kinds == wanted
    defaults = TrainConfig().tree()
    assert kinds == {(path, defaults[path.split(".")[0]]["kind"]) for path, _ in kinds}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_path_that_is_named_exists(name):
    text = DOCUMENTS[name]
    folder = (ROOT / name).parent
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert [link for link in links if not (folder / link).exists()] == []
    places = re.findall(r"`((?:unetexp|sweeps|tests|docs|\.ci)/[\w./]*)`", text)
    assert [place for place in places if not (ROOT / place).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_pictures_are_small(name):
    for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", DOCUMENTS[name]):
        assert (ROOT / name).parent.joinpath(picture).stat().st_size < 300_000
