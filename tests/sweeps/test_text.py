"""Printed commands work in the shell that they are read in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sweeps.text import program, spelled_duration


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An environment in the current folder, as `make` makes it."""
    folder = tmp_path / ".venv/bin"
    folder.mkdir(parents=True)
    for name in ("python", "python3", "unetexp"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python3"))
    monkeypatch.chdir(tmp_path)
    return folder


def test_an_activated_environment_needs_no_path(environment, monkeypatch):
    monkeypatch.setenv("PATH", str(environment))
    assert program("python") == "python"
    assert program("unetexp") == "unetexp"


def test_another_python_in_the_shell_is_passed_over(environment, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    assert program("python") == str(Path(".venv/bin/python"))
    assert program("unetexp") == str(Path(".venv/bin/unetexp"))


def test_from_elsewhere_the_path_is_whole(environment, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert program("unetexp") == str(environment / "unetexp")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(7.6, "8 s"), (59.7, "1 min"), (200, "3 min 20 s"), (3600, "1 h"), (7500, "2 h 5 min")],
)
def test_a_duration_is_spelled(seconds, text):
    assert spelled_duration(seconds) == text
