"""Imports go downward only: the floors of all files, and what each package must not know."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("unetexp", "unetexp.data", "sweeps", "sweeps.report")

# A module may import from the floors below its own, 0 being the lowest, and `sweeps` from all of
# `unetexp`. To its surroundings a package inside a package, such as `unetexp.data`, is one module;
# inside it has its own floors.
FLOORS = {
    "unetexp": (
        "batch_norm errors folders latency lazy network tiles version",
        "component intervals labels parallel server state_dicts terminal",
        "augment data decoders encoders metrics optim pixels tracking_uri",
        "inputs losses opening pictures pretrained scores unet",
        "config original receptive_field weights",
        "archive batches create device",
        "locate machine payloads predict state",
        "loop predict_files run_record served",
        "evaluation experiment predict_command",
        "evaluate_command reproduction",
        "reproduce_command",
        "cli __init__",
    ),
    "unetexp.data": (
        "pairs splitting",
        "dataset files images mni152",
        "cache file_pairs",
        "listing",
        "checks folder",
        "build oxford_pet",
        "sources",
        "__init__",
    ),
    "sweeps": (
        "__init__ budget gates installed ledger line packaging record rungs runs search_memory "
        "security shell signals space staging storage words",
        "cluster conditions deaths disk recipe store trial",
        "hardware links parallel_trial places points promotion_lock registry rehearsal room "
        "tally trial_run views warm_start",
        "conductor notes probe progress tracking",
        "adapters candidates catalogue forecast leaderboard plan publishing",
        "preparation ranking report resume runner",
        "origin preflight tables",
        "sweep",
        "confirm follow_up formats",
        "case command compare_command",
        "card compare promotion_view run",
        "promotion",
        "promote_command",
        "promote",
    ),
    "sweeps.report": (
        "drawing searched",
        "evidence",
        "course effects gallery heat importance outcomes",
        "choices findings",
        "figures page",
        "__init__",
    ),
}
FORBIDDEN_IN_UNETEXP = {"sweeps", "ray", "optuna", "mlflow"}
MAY_KNOW_MLFLOW = {
    "unetexp.locate",  # finds a model by its address
    "unetexp.served",  # is what MLflow runs
}


def source_files():
    """Module name -> file, for every file of the packages; a package is its `__init__`."""
    return {
        f"{package}.{path.stem}": path
        for package in PACKAGES
        for path in sorted((ROOT / package.replace(".", "/")).glob("*.py"))
    }


FILES = source_files()


PLACES = {  # module name -> (package, floor)
    f"{package}.{name}": (package, floor)
    for package, ladder in FLOORS.items()
    for floor, names in enumerate(ladder)
    for name in names.split()
}


def imported(path, package):
    """The full names of all that a file imports anywhere, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            origin = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            names |= {f"{origin}.{alias.name}" for alias in node.names}
    return names


def own_module(name):
    """The module of ours that an imported name lies in, or None."""
    while name:
        if name in FILES:
            return name
        if f"{name}.__init__" in FILES:
            return f"{name}.__init__"
        name = name.rpartition(".")[0]
    return None


IMPORTS = {module: imported(path, module.rpartition(".")[0]) for module, path in FILES.items()}
GRAPH = {
    module: {own for own in map(own_module, names) if own and own != module}
    for module, names in IMPORTS.items()
}


def is_below(other, module):
    """Whether `module` may import `other`."""
    (package, floor), (other_package, other_floor) = PLACES[module], PLACES[other]
    if package == other_package:
        return other_floor < floor
    if package.partition(".")[0] != other_package.partition(".")[0]:
        return package.startswith("sweeps")
    floor, other_floor = (  # what is in an inner package stands where that package does
        PLACES[place[0]][1] if "." in place[0] else place[1]
        for place in (PLACES[module], PLACES[other])
    )
    return other_floor < floor


def test_the_table_has_every_module_exactly_once():
    listed = [
        f"{package}.{name}"
        for package, ladder in FLOORS.items()
        for names in ladder
        for name in names.split()
    ]
    for inner in (package for package in PACKAGES if "." in package):
        listed.remove(inner)  # it has a ladder of its own
    assert sorted(listed) == sorted(FILES)


def test_every_python_file_of_the_packages_is_in_a_known_package():
    found = {path for top in ("unetexp", "sweeps") for path in (ROOT / top).rglob("*.py")}
    assert found == set(FILES.values())


@pytest.mark.parametrize("module", FILES)
def test_imports_go_down(module):
    assert not [other for other in GRAPH[module] if not is_below(other, module)]


def test_there_are_no_cycles():
    list(TopologicalSorter(GRAPH).static_order())  # raises CycleError, naming the ring


@pytest.mark.parametrize("module", [name for name in FILES if name.startswith("unetexp")])
def test_one_experiment_knows_nothing_of_sweeps(module):
    forbidden = FORBIDDEN_IN_UNETEXP - ({"mlflow"} if module in MAY_KNOW_MLFLOW else set())
    assert not forbidden & {name.partition(".")[0] for name in IMPORTS[module]}


def test_the_map_in_contributing_shows_these_floors():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `([\w/.]+)` \|", text, flags=re.MULTILINE)
    shown = [(path.removesuffix(".py").strip("/").replace("/", "."), int(n)) for n, path in rows]
    assert sorted(shown) == sorted((module, floor) for module, (_, floor) in PLACES.items())


def test_the_checks_see_what_they_look_for(tmp_path):
    file = tmp_path / "bad.py"
    file.write_text(
        "def f():\n    import ray.tune\n    from . import loop\n    from .data import x"
    )
    assert imported(file, "unetexp") == {"ray.tune", "unetexp.loop", "unetexp.data.x"}
    assert own_module("unetexp.data.x") == "unetexp.data.__init__"
    assert own_module("unetexp.loop.fit") == "unetexp.loop"
    assert own_module("torch.nn") is None
    assert is_below("unetexp.data.folder", "unetexp.config")
    assert not is_below("unetexp.augment", "unetexp.data.folder")
    assert not is_below("unetexp.loop", "unetexp.loop")
    assert not is_below("sweeps.space", "unetexp.cli")
