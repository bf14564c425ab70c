"""A short version of benchmarks/chaos.py: a disturbed sweep equals its configs run alone."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.disturbance.faults import draw, schedule

SCRIPT = Path(__file__).parents[2] / "benchmarks/chaos.py"


@pytest.mark.parametrize("seed", range(20))
def test_every_fault_comes_once_and_before_the_sweep_is_over(seed):
    rng = random.Random(seed)
    faults = draw(["a", "b", "c"], 7, rng)
    points = schedule(len(faults), 8, rng)
    assert sorted(faults) == ["a"] * 3 + ["b"] * 2 + ["c"] * 2
    assert points == sorted(set(points))
    assert points[0] >= 1
    assert points[-1] < 8


@pytest.mark.slow
def test_a_disturbed_sweep_equals_its_configs_run_alone(tmp_path):
    """The driver's clock jumps; a checkpoint is damaged and the driver killed."""
    command = [sys.executable, SCRIPT, "--faults", "checkpoint,clock", "--count", 2, "--seed", 0]
    command += ["--trials", 2, "--epochs", 6, "--checkpoint-every-s", 0]
    command += ["--against", "alone", "--keep", tmp_path]

    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)

    logs = "".join(log.read_text(encoding="utf-8") for log in tmp_path.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    counts = dict(re.findall(r"^\| (.+?) \| (\d+) \|$", done.stdout, flags=re.MULTILINE))
    faults = {name: counts.pop(name) for name in ("checkpoint", "clock", "all")}
    assert faults == {"checkpoint": "1", "clock": "1", "all": "2"}
    assert "is skipped" in logs
    assert set(counts.values()) == {"0"}
    assert len(counts) == 10
