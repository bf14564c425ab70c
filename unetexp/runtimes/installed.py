"""Runtimes that are optional: imported when a file needs them."""

from __future__ import annotations

import importlib
from typing import Any

from unetexp.errors import ConfigError, UserError


def required(module: str, extra: str, purpose: str) -> Any:
    """The module; UserError with the extra that brings it if it is not installed.

    `purpose` is what it is needed for, as in "an ONNX file".
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"{purpose} needs {module.partition('.')[0]}, which cannot be imported here ({error}). "
            f"Install it: pip install 'unetexp[{extra}]'"
        ) from None


def required_torch(purpose: str) -> Any:
    """The module torch, without which an image that serves other files has to do."""
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise UserError(
            f"{purpose} needs torch, which cannot be imported here ({error}). Install it, or "
            "export the model to onnx or openvino, which need no torch."
        ) from None


def require_cpu(device: str, runtime: str) -> None:
    """ConfigError if a GPU is asked of a runtime that computes on the CPU."""
    if device.startswith("cuda"):
        raise ConfigError(
            f"device {device!r}: {runtime} computes on the CPU here. Use cpu, or auto."
        )
