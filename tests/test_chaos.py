"""A short version of benchmarks/chaos.py: a sweep under four faults equals its undisturbed twin."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks/chaos.py"


@pytest.mark.timeout(400)
def test_a_disturbed_sweep_equals_its_twin(tmp_path):
    command = [sys.executable, SCRIPT, "--faults", "driver,worker,checkpoint,clock", "--count", 4]
    command += ["--trials", 2, "--epochs", 6, "--keep", tmp_path]

    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)

    logs = "".join(log.read_text(encoding="utf-8") for log in tmp_path.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    counts = dict(re.findall(r"^\| (.+?) \| (\d+) \|$", done.stdout, flags=re.MULTILINE))
    faults = {name: int(counts.pop(name)) for name in ("driver", "worker", "checkpoint", "clock")}
    assert sum(faults.values()) == 4
    assert set(counts.values()) == {"0"}
    assert len(counts) == 7
