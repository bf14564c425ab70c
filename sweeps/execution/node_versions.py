"""Versions installed on a node. Imports only the standard library, to run on any node."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("torch", "torchvision", "ray")  # must have the same version on all nodes
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
    """Number of GPUs that torch can use on this node; 0 without torch."""
    try:
        import torch
    except ImportError:
        return 0
    return torch.cuda.device_count()
