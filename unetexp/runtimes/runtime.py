"""One exported file in its runtime: arrays in, arrays out.

N batch, C channels, K classes, H W image size.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from unetexp.errors import CheckpointError
from unetexp.runtimes.description import Description, Format, read_text

Run = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class LoadedFile:
    """What the module of a format makes of a file."""

    text: str | None  # the description that the file holds
    run: Run
    runtime: str  # its name and version
    device: str  # cpu or cuda


class FormatModule(Protocol):
    """What each of the modules `FORMATS` has."""

    SUFFIXES: tuple[str, ...]

    @staticmethod
    def recognises(path: Path, head: bytes) -> bool:
        """Whether the file, which starts with `head`, is of this format; needs no runtime."""

    @staticmethod
    def load_file(path: Path, device: str, threads: int | None) -> LoadedFile:
        """Load it on `device` (auto, cpu or cuda) with so many threads, by default all cores.

        Raises UserError where the runtime is not installed or has no such device, and
        CheckpointError for a damaged file.
        """


# In the order in which a file is looked at; ONNX, which has no mark, is the last.
FORMATS: dict[Format, str] = {
    "openvino": "openvino_runtime",
    "torchscript": "torchscript_runtime",
    "pt2": "pt2_runtime",
    "tensorrt": "tensorrt_runtime",
    "onnx": "onnx_runtime",
}
_HEAD_BYTES = 4096


@dataclass(frozen=True)
class Runtime:
    """A model in its runtime.

    Called with normalised float32 images (N, C, H, W) it returns logits (N, K, H, W) float32; if
    `description.preprocessing`, it takes raw images (N, H, W, C), uint8 or uint16 as in training,
    and returns label maps (N, H, W) uint8.
    """

    path: Path
    description: Description
    device: str
    name: str  # the runtime with its version
    run: Run

    def __call__(self, images: NDArray[Any]) -> NDArray[Any]:
        return self.run(images)


def format_module(name: Format) -> FormatModule:
    """The module that reads files of a format; importing it needs no runtime."""
    module: Any = importlib.import_module(f"unetexp.runtimes.{FORMATS[name]}")
    return module  # type: ignore[no-any-return]


def format_of(path: Path) -> Format | None:
    """The format of a file by its content; None if it is none of ours."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return None
    return next((name for name in FORMATS if format_module(name).recognises(path, head)), None)


def open_runtime(
    path: str | Path, device: str = "auto", *, threads: int | None = None, probed: bool = True
) -> Runtime:
    """Load an exported file into its runtime, and compare what it says of the probe image.

    Raises UserError for a runtime that is not installed or lacks the device, and CheckpointError
    for a file that is damaged, of a newer version or not ours, and for a runtime that gives other
    numbers than at export time (unless `probed` is False).
    """
    path = Path(path)
    kind = format_of(path)
    if kind is None:
        raise CheckpointError(f"{path}: this is not an exported model ({', '.join(FORMATS)}).")
    loaded = format_module(kind).load_file(path, device, threads)
    description = read_text(loaded.text, str(path))
    runtime = Runtime(path, description, loaded.device, loaded.runtime, loaded.run)
    if probed:
        _require_the_same_numbers(runtime)
    return runtime


def _require_the_same_numbers(runtime: Runtime) -> None:
    probe = runtime.description.probe
    if probe is None:
        return
    difference = probe.difference(runtime(probe.given.unpacked()))
    if not difference <= probe.tolerance:
        raise CheckpointError(
            f"{runtime.path}: {runtime.name} gives other numbers here than "
            f"{runtime.description.runtime} gave when the file was exported: on the probe image "
            f"stored in it they differ by {difference:.2g}, and {probe.tolerance:g} is allowed. "
            "Export the model again with the runtime of this machine, or install that version."
        )
