"""Cores and memory: the machine's, or what a container's cgroup leaves of them."""

from __future__ import annotations

import builtins
import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from sweeps.config.budget import Budget
from sweeps.driver.provenance import hardware_tags
from sweeps.execution.placement import place
from unetexp.system import machine

GIB = 2**30
UNLIMITED_V1 = 9223372036854771712


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """A machine of 64 cores and 256 GiB whose cgroup is a folder: `cgroup(**{file: content})`."""
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 64, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(48)), raising=False)
    memory = SimpleNamespace(total=256 * GIB, available=200 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    plain_open, exists = builtins.open, os.path.exists

    def moved(path):
        return str(path).replace("/sys/fs/cgroup", str(tmp_path))

    monkeypatch.setattr(builtins, "open", lambda path, *a, **k: plain_open(moved(path), *a, **k))
    monkeypatch.setattr(os.path, "exists", lambda path: exists(moved(path)))

    def write(files):
        for name, content in files.items():
            path = Path(tmp_path, name)
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{content}\n")

    return write


class TestCores:
    @pytest.mark.parametrize(
        ("files", "cores"),
        [
            ({}, 48),
            ({"cpu.max": "max 100000"}, 48),
            ({"cpu.max": "250000 100000"}, 3),
            ({"cpu.max": "50000 100000"}, 1),
            ({"cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 100000}, 48),
            ({"cpu/cpu.cfs_quota_us": 400000, "cpu/cpu.cfs_period_us": 100000}, 4),
            ({"cpu.max": "6400000 100000"}, 48),
        ],
    )
    def test_the_least_of_affinity_and_quota(self, cgroup, files, cores):
        cgroup(files)
        assert machine.available_cores() == cores

    def test_what_python_is_told_to_use_counts_too(self, cgroup, monkeypatch):
        monkeypatch.setattr(os, "process_cpu_count", lambda: 5, raising=False)
        assert machine.available_cores() == 5

    def test_trials_share_the_quota_not_the_machine(self, cgroup):
        cgroup({"cpu.max": "400000 100000"})
        placement = place(Budget(), 0, None)
        assert (placement.cpus, placement.threads) == (4, 2)
        assert hardware_tags()["hardware.cpu"].startswith("4 cores")


class TestMemory:
    def test_the_machines_where_nothing_is_limited(self, cgroup):
        assert machine.total_memory_bytes() == 256 * GIB
        assert machine.available_memory_bytes() == 200 * GIB

    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_the_containers(self, cgroup, version):
        if version == "v2":
            cgroup({"memory.max": 16 * GIB, "memory.current": 10 * GIB})
            cgroup({"memory.stat": f"anon 1\ninactive_file {4 * GIB}"})
        else:
            cgroup({"memory/memory.limit_in_bytes": 16 * GIB})
            cgroup({"memory/memory.usage_in_bytes": 10 * GIB})
            cgroup({"memory/memory.stat": f"cache 1\ntotal_inactive_file {4 * GIB}"})
        assert machine.total_memory_bytes() == 16 * GIB
        assert machine.available_memory_bytes() == 10 * GIB  # file cache is given up
        assert hardware_tags()["hardware.memory_gib"] == "16.0"

    def test_a_limit_that_is_none(self, cgroup):
        cgroup({"memory.max": "max", "memory.current": GIB})
        assert machine.total_memory_bytes() == 256 * GIB
        cgroup({"memory.max": UNLIMITED_V1, "memory.stat": "anon 1"})
        assert machine.available_memory_bytes() == 200 * GIB
