"""A sweep without a recipe: planned from its data, and kept as a file that can be run again."""

from __future__ import annotations

import pytest

from sweeps.config.loading import load_recipe
from sweeps.driver import planned
from sweeps.driver.plan import SweepOptions
from sweeps.driver.planned import with_planned_recipe
from tests.support.data_folders import write_folder_dataset
from tests.support.sweep_command import run_here


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where planned recipes are kept in the test."""
    monkeypatch.setattr(planned, "FOLDER", tmp_path / "recipes")
    return tmp_path / "recipes"


@pytest.fixture
def root(tmp_path):
    return write_folder_dataset(tmp_path / "cells", {"train": 6, "val": 2})


def planned_with(keep, **options):
    said = []
    given = SweepOptions(**options)
    with with_planned_recipe(given, keep=keep, on_progress=None, said=said.append) as found:
        return found, load_recipe(found.recipe, found.changes, found.data), "\n".join(said)


def test_a_recipe_that_is_named_is_taken(folder, root):
    options = SweepOptions(recipe="folder", data=str(root))
    with with_planned_recipe(options, keep=True, on_progress=None, said=print) as found:
        assert found is options
    assert not folder.exists()


def test_the_recipe_is_kept_and_names_the_data(folder, root):
    found, recipe, said = planned_with(True, data=str(root), gpus=0)
    [file] = folder.iterdir()
    assert found.recipe == str(file)
    assert found.data is None
    assert str(file) in said
    assert recipe.name == "cells"
    assert recipe.base.data.root == str(root)


def test_changes_go_into_the_plan_and_over_it(folder, root):
    changes = {"data.val_fraction": 0.25, "epochs": 3}
    _, recipe, _ = planned_with(True, data=str(root), gpus=0, changes=changes)
    assert recipe.base.data.val_fraction == 0.25
    assert recipe.base.epochs == 3


def test_a_dry_run_shows_the_recipe_and_keeps_nothing(folder, root, tmp_path):
    flags = [
        "--data",
        root,
        "--dry-run",
        "--gpus",
        0,
        "--tracking-uri",
        f"sqlite:///{tmp_path}/m.db",
    ]
    said = run_here(*flags)
    assert "# Planned from the data" in said
    assert "Sweep cells-" in said
    assert not folder.exists()
    assert not (tmp_path / "m.db").exists()


def test_data_that_is_not_there_is_the_users_mistake(folder):
    assert "/no/such" in run_here("--data", "/no/such", "--dry-run", code=2)
    assert "/no/such" in run_here("folder", "--data", "/no/such", "--dry-run", code=2)


@pytest.mark.slow
def test_a_planned_sweep_runs_and_resumes(folder, root, tmp_path):
    place = ["--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db", "--storage", tmp_path / "runs"]
    small = ["--trials", 1, "--epochs", 1, "--gpus", 0, "--skip-preflight", "--cpus-per-trial", 1]
    fixed = ["--set", "encoder.name=resnet18", "--set", "encoder.weights=none"]
    said = run_here("--data", root, *small, *fixed, *place, "--name", "mine")
    assert "1 completed" in said
    said = run_here("--resume", "mine", "--trials", 2, "--gpus", 0, *place)
    assert "2 completed" in said
