"""What a node has installed. Only the standard library is imported, so it runs on a bare node."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("torch", "torchvision", "ray")  # what must be the same everywhere
MISSING = "not installed"


def installed() -> dict[str, str]:
    """Versions of Python (without its patch level) and of `PACKAGES` (without `+cpu`, `+cu130`)."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for package in PACKAGES:
        try:
            found[package] = version(package).partition("+")[0]
        except PackageNotFoundError:
            found[package] = MISSING
    return found


def cuda_devices() -> int:
    """GPUs that torch can compute on here; 0 without torch."""
    try:
        import torch
    except ImportError:
        return 0
    return torch.cuda.device_count()
