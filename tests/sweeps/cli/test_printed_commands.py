"""Printed commands, typed where they were printed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.cli.next_steps import after_promotion
from sweeps.text import make, script
from sweeps.tracking.mlflow_ui import ui_command
from sweeps.tracking.store import PROJECT_ROOT, open_store
from tests.support.tracking_stores import write_sweep

TRIALS = [({"loss.kind": "focal"}, [0.5], "completed")]


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """A store in a folder whose name has a space and a quote."""
    folder = tmp_path_factory.mktemp("printed") / "it's a store"
    uri = f"sqlite:///{folder}/mlflow.db"
    write_sweep(open_store(uri), "one", TRIALS, epochs=1)
    return uri


@pytest.fixture(params=["/", "elsewhere", "sweeps"])
def here(request, tmp_path, monkeypatch):
    """Where the user stands."""
    folder = {"/": Path("/"), "elsewhere": tmp_path, "sweeps": PROJECT_ROOT / "sweeps"}
    monkeypatch.chdir(folder[request.param])
    return Path.cwd()


def call(command, code=0):
    done = subprocess.run(
        command,
        shell=isinstance(command, str),
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "80"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_scripts_are_found_from_everywhere(here):
    for name in ("run", "compare", "promote"):
        path = shlex.split(script(name))[1]
        assert (here / path).samefile(PROJECT_ROOT / "sweeps" / f"{name}.py")


def test_make_is_sent_to_the_project_and_keeps_odd_addresses_whole(here, uri):
    for command in (ui_command(None), ui_command(uri), after_promotion(uri, back=False)[1][1]):
        words = shlex.split(command)
        assert (here / words[words.index("-C") + 1]).samefile(PROJECT_ROOT)
    assert f"TRACKING_URI={uri}" in shlex.split(ui_command(uri))
    dry = call(f"{make('ui', TRACKING_URI=uri)} --dry-run")
    assert '--backend-store-uri "$STORE"' in dry


def test_in_the_project_commands_are_short(monkeypatch):
    monkeypatch.chdir(PROJECT_ROOT)
    assert script("compare", "one").endswith("python sweeps/compare.py one")
    assert make("ui") == "make ui"


@pytest.mark.slow
def test_what_compare_prints_can_be_typed(here, uri):
    ours = [sys.executable, str(PROJECT_ROOT / "sweeps" / "compare.py"), "--tracking-uri", uri]
    promote = re.search(r"promote the best  (.*)", call(ours))[1]
    assert "usage" in call(f"{promote} --help").lower()
    mistake = " ".join(call(f"{promote.replace(' one ', ' two ')}", code=2).split())
    listing = mistake.partition("List them: ")[2]
    assert re.search(r"^one +finished", call(listing), re.MULTILINE)
