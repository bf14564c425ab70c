"""Where recorded curves come from: the command, the machine, the date and the versions."""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import shlex
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unetexp.system.machine import available_cores, cpu_model
from unetexp.version import __version__

_LIBRARIES = ("torch", "torchvision", "timm", "numpy", "optuna")


@functools.cache
def _this_process() -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    machine = f"{cpu_model()}, {available_cores()} cores, one thread"
    own = {"unetexp": __version__, "commit": _commit()}
    return {"machine": machine, "versions": {**own, **versions}}


def _commit() -> str:
    """The checkout's commit; + where files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"


def here() -> dict[str, Any]:
    """Machine, versions and the time of now, for a record."""
    return {**_this_process(), "at": datetime.now(UTC).isoformat(timespec="seconds")}


def command_of(asked: argparse.Namespace) -> str:
    """The command that records the same, with the names of sets for their paths."""
    sets = [Path(root).name for root in asked.sets]
    numbers = {"--configs": asked.configs, "--seeds": asked.seeds, "--epochs": asked.epochs}
    options = [*numbers.items(), ("--crop-px", asked.crop_px)]
    words = ["--sets", *sets, *(str(word) for pair in options for word in pair)]
    return shlex.join(["python", "benchmarks/curves/record.py", "run", *words])
