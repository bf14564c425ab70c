"""The pages that are written from the code are up to date and name everything there is."""

import importlib.util
import json
import re

import pytest

from sweeps.config.recipe import Recipe
from sweeps.tracking.store import PROJECT_ROOT as ROOT
from unetexp.component import flatten
from unetexp.training.config import TrainConfig, decode_config

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def generate():
    """The module `docs/generate.py`, which is in no package."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["settings.md", "options.md"])
def test_the_pages_are_as_the_code_writes_them(generate, name, tmp_path):
    generate.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"settings.md", "options.md"}
    written = (tmp_path / name).read_text(encoding="utf-8")
    assert (DOCS / name).read_text(encoding="utf-8") == written, "run `make docs`"


def rows():
    """Setting -> the default that the page gives, a list where several kinds have it."""
    text = (DOCS / "settings.md").read_text(encoding="utf-8")
    found: dict = {}
    for path, default in re.findall(r"^\| `([\w.]+)` \| .*? \| `?([^`|]+?)`? \| \w", text, re.M):
        found.setdefault(path, []).append(default)
    return found


@pytest.mark.parametrize("loss", ["cross_entropy", "bce_dice", "focal", "tversky"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("data", ["mni152", "oxford_pet"])
def test_the_defaults_are_those_of_an_experiment(loss, optimizer, data):
    shown = rows()
    kinds = {"loss": loss, "optimizer": optimizer, "data": data}
    tree = decode_config({name: {"kind": kind} for name, kind in kinds.items()}).tree()
    for path, value in flatten(tree).items():
        if not path.endswith(".kind"):
            assert (value if isinstance(value, str) else json.dumps(value)) in shown[path], path


def test_every_key_of_a_recipe_is_there():
    headings = re.findall(r"^### (\w+)", (DOCS / "settings.md").read_text(), re.M)
    named = {*headings, *(path.split(".")[0] for path in rows())}
    assert named >= {*TrainConfig.model_fields, *Recipe.model_fields} - {"base"}


@pytest.mark.parametrize("command", ["run", "compare", "promote", "unetexp train"])
def test_every_option_of_a_command_is_there(generate, command, capsys):
    """Against what the command's own --help prints."""
    name = command if " " in command else f"python sweeps/{command}.py"
    with pytest.raises(SystemExit):
        generate.commands()[name].main(["--help"])
    printed = set(re.findall(r"^[ │]*(--[a-z-]+)", capsys.readouterr().out, re.M))
    page = (DOCS / "options.md").read_text(encoding="utf-8")
    section = page[page.index(f"## {name}\n") :].partition("\n## ")[0]
    assert len(printed) > 4
    assert printed - {"--help"} == set(re.findall(r"^\| `(--[a-z-]+)", section, re.M))
