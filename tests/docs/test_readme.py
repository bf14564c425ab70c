"""What the documents say can be done: examples run, commands parse, recipes and paths exist."""

import re
import shlex

import pytest
import typer

from sweeps.cli.compare import app as compare_app
from sweeps.cli.promote import app as promote_app
from sweeps.cli.run import app as sweep_app
from sweeps.config.budget import Asha, Budget, Objective
from sweeps.config.loading import RECIPES as RECIPE_FILES
from sweeps.config.loading import available_recipes, load_recipe
from sweeps.driver.plan import DEFAULT_RECIPE
from sweeps.tracking.store import PROJECT_ROOT as ROOT
from tests.support.data_folders import write_folder_dataset
from unetexp.cli.main import app as unetexp_app
from unetexp.training.config import TrainConfig, decode_config, parse_assignments

DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
}
RECIPES = DOCUMENTS["docs/recipes.md"]
SWEEP_PARSER = typer.main.get_command(sweep_app)
TRAIN_PARSER = typer.main.get_command(unetexp_app)
AFTERWARDS = {
    "python sweeps/compare.py": typer.main.get_command(compare_app),
    "python sweeps/promote.py": typer.main.get_command(promote_app),
    **{f"unetexp {name}": TRAIN_PARSER.commands[name] for name in ("predict", "evaluate")},
    "unetexp reproduce": TRAIN_PARSER.commands["reproduce"],
}


def blocks(language, text):
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(start):
    """The shell lines of all documents that begin with `start`, without it and without comments."""
    texts = [block for text in DOCUMENTS.values() for block in blocks("sh", text)]
    lines = [line for block in texts for line in block.splitlines()]
    return [line.removeprefix(start).strip() for line in lines if line.startswith(start)]


def parsed(parser, line):
    """The parameters that a command line gives; an unknown option raises."""
    return parser.make_context("command", shlex.split(line, comments=True)).params


def test_the_python_examples_run(tmp_path, monkeypatch):
    write_folder_dataset(tmp_path / "images", {"train": 5, "val": 2})
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    examples = blocks("python", DOCUMENTS["docs/python.md"])
    assert len(examples) >= 4
    for example in examples:
        exec(compile(example, "docs/python.md", "exec"), names)


@pytest.mark.parametrize("line", commands("python sweeps/run.py"))
def test_the_sweep_commands_parse_and_fit_their_recipes(line, reader):
    given = parsed(SWEEP_PARSER, line)
    if not given["list_"] and given["delete"] is None and given["resume"] is None:
        assert load_recipe(
            given["recipe"] or DEFAULT_RECIPE, parse_assignments(given["set_"] or []), given["data"]
        )


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """Somebody who stands where the documents' places are: ROOT, SHARED/data and recipes."""
    write_folder_dataset(tmp_path / "ROOT", {"train": 2, "val": 1})
    (tmp_path / "SHARED").mkdir()
    (tmp_path / "SHARED/data").symlink_to(tmp_path / "ROOT")
    for name in ("mine.yaml", "next.yaml"):
        (tmp_path / name).write_text((RECIPE_FILES / "folder.yaml").read_text())
    monkeypatch.chdir(tmp_path)


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


def test_every_target_of_make_exists():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for text in DOCUMENTS.values():
        code = re.findall(r"(?:`|^)make ([a-z-]+)", text, flags=re.MULTILINE)
        assert set(code) <= set(targets)


def test_the_recipe_example_is_a_recipe_with_every_key(tmp_path):
    (example,) = blocks("yaml", RECIPES)
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
    assert set(available_recipes()) <= set(re.findall(r"^\| `(\w+)` \|", RECIPES, re.MULTILINE))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_path_that_is_named_exists(name):
    named = r"`((?:unetexp|sweeps|tests|docs|benchmarks|\.ci)/[\w./-]*)`"
    places = re.findall(named, DOCUMENTS[name])
    assert [place for place in places if not (ROOT / place).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_pictures_are_small(name):
    for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", DOCUMENTS[name]):
        assert (ROOT / name).parent.joinpath(picture).stat().st_size < 300_000


def test_the_first_page_and_the_contributors_page_are_short():
    assert len(DOCUMENTS["README.md"].splitlines()) <= 200
    assert len(DOCUMENTS["CONTRIBUTING.md"].splitlines()) <= 110


def test_every_room_is_on_the_map():
    rooms = {f"{folder.parent.name}/{folder.name}/" for folder in _rooms()}
    assert rooms <= set(re.findall(r"`([\w/]+/)`", DOCUMENTS["CONTRIBUTING.md"]))


def _rooms():
    return [file.parent for top in ("sweeps", "unetexp") for file in ROOT.glob(f"{top}/*/*.py")]
