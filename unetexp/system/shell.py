"""Commands that are printed for the user to type: they work in the current folder."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[2]


def program(name: str) -> str:
    """`python` or `unetexp`: the bare name if the shell finds this environment's, else its path.

    After `make sweep` the shell's own Python is not the one that the sweep used.
    """
    ours = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if (found and Path(found).absolute() == ours) or not ours.exists():
        return name
    here = _current_folder()
    near = here is not None and ours.is_relative_to(here)
    return shlex.quote(str(ours.relative_to(here) if near and here else ours))


def script(name: str, *arguments: str) -> str:
    """The command that runs `sweeps/NAME.py` with these arguments."""
    path = _nearest(PROJECT_ROOT / "sweeps" / f"{name}.py")
    return " ".join([program("python"), shlex.quote(path), *map(shlex.quote, arguments)])


def installed(name: str, *arguments: str) -> str:
    """The command that runs a program of this environment with these arguments."""
    return " ".join([program(name), *map(shlex.quote, arguments)])


def make(target: str, **variables: str) -> str:
    """The `make` command for a target of the project's Makefile."""
    here = _current_folder()
    elsewhere = [] if here == PROJECT_ROOT else ["-C", _nearest(PROJECT_ROOT)]
    given = [f"{name}={value}" for name, value in variables.items()]
    return shlex.join(["make", *elsewhere, target, *given])


def _nearest(path: Path) -> str:
    """The path from the current folder, or from the root if that is shorter."""
    here = _current_folder()
    if here is None:
        return str(path)
    return min(os.path.relpath(path, here), str(path), key=len)


def _current_folder() -> Path | None:
    """The current folder, or None if it has been removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None
