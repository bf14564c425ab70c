"""The machine's processor, and the cores and memory that this process may use of it.

A container's limits are included.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")  # in a container its own limits lie there
# (limit, used, the key of `memory.stat` with the file cache that is dropped when memory is needed)
_MEMORY_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)


def available_cores() -> int:
    """Cores this process may use: of its affinity, and of its cgroup's CPU quota, rounded up."""
    from joblib import cpu_count  # takes a while, and not every command counts cores

    cores: int = cpu_count()
    usable = getattr(os, "process_cpu_count", os.cpu_count)()  # Python 3.13: PYTHON_CPU_COUNT too
    return min(cores, usable or cores)


def cpu_model() -> str:
    """The processor's name with family, model and stepping, or else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {name.strip(): value.strip() for name, _, value in (li.partition(":") for li in lines)}
    numbers = [facts[name] for name in ("cpu family", "model", "stepping") if name in facts]
    name = facts.get("model name", platform.machine())
    return f"{name} ({'/'.join(numbers)})" if numbers else name


def total_memory_bytes() -> int:
    """The machine's memory, or what the container may have of it."""
    import psutil  # a served model does without it

    limit = _cgroup_memory()
    total = psutil.virtual_memory().total
    return total if limit is None else min(total, limit[0])


def available_memory_bytes() -> int:
    """Memory that this process can still get, on the machine and within the container's limit."""
    import psutil  # a served model does without it

    limit = _cgroup_memory()
    available = psutil.virtual_memory().available
    return available if limit is None else max(0, min(available, limit[0] - limit[1]))


def _cgroup_memory() -> tuple[int, int] | None:
    """The cgroup's limit and what is taken of it, in bytes; None where nothing is limited."""
    for limit_file, used_file, dropped in _MEMORY_FILES:
        limit, used = CGROUP / limit_file, CGROUP / used_file
        if not (limit.is_file() and used.is_file()):
            continue
        text = limit.read_text().strip()
        if text == "max":
            return None
        stat = used.with_name("memory.stat")
        figures = dict(line.split() for line in stat.read_text().splitlines())
        return int(text), int(used.read_text()) - int(figures.get(dropped, 0))
    return None


def give_back_freed_memory() -> None:
    """Give the memory that this process has freed back to the system.

    glibc keeps it for later: 0.7 GiB after a ResNet-50 was trained, in each thread that trained.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library gives it back by itself
        ctypes.CDLL("libc.so.6").malloc_trim(0)
