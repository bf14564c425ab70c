"""Writers of exported files: one module for each format, and one for each of its int8 forms.

To add one: a module with the functions of `Writer`, and its name in `WRITERS`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol

from unetexp.errors import ConfigError, not_a_choice
from unetexp.export.subject import Subject
from unetexp.runtimes.description import Format, Precision

WRITERS: dict[tuple[Format, Precision], str] = {
    ("onnx", "fp32"): "onnx_file",
    ("onnx", "fp16"): "onnx_file",
    ("openvino", "fp32"): "openvino_file",
    ("openvino", "fp16"): "openvino_file",
    ("onnx", "int8"): "onnx_int8",
    ("openvino", "int8"): "openvino_int8",
    ("torchscript", "fp32"): "torchscript_file",
    ("torchscript", "fp16"): "torchscript_file",
    ("pt2", "fp32"): "pt2_file",
    ("pt2", "fp16"): "pt2_file",
    ("pt2", "int8"): "pt2_int8",
    ("tensorrt", "fp32"): "tensorrt_engine",
    ("tensorrt", "fp16"): "tensorrt_engine",
    ("tensorrt", "int8"): "tensorrt_engine",
}


class Writer(Protocol):
    """What each module in `WRITERS` has."""

    SUFFIX: str  # of the file, as its users expect it

    @staticmethod
    def require_installed() -> None:
        """Raise UserError, with the extra that brings it, for a library that is missing."""

    @staticmethod
    def write(subject: Subject, path: Path) -> None:
        """Write the graph of `subject` in its precision to `path`, and files beside it.

        Raises UserError for an operator that the format lacks.
        """

    @staticmethod
    def describe(path: Path, text: str) -> None:
        """Store the description in the file at `path`, which `write` has written."""


def writer_of(target: Format, precision: Precision) -> Writer:
    """The writer of a format in a precision; ConfigError if there is none."""
    if (target, precision) == ("torchscript", "int8"):
        raise ConfigError(
            "--precision int8: TorchScript has none, because torch's quantisation works on the "
            "graphs of torch.export. Choose --to openvino or --to onnx for int8 on a CPU, --to "
            "pt2 for torch, --to tensorrt for an NVIDIA GPU; or --precision fp32 or fp16."
        )
    if (target, precision) not in WRITERS:
        known = [p for t, p in WRITERS if t == target]
        raise ConfigError(not_a_choice(f"--precision of {target}", precision, known))
    module: Any = importlib.import_module(f"{__name__}.{WRITERS[target, precision]}")
    return module  # type: ignore[no-any-return]
