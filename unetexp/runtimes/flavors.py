"""The flavours of a promoted model: its weights in PyTorch, and the exports that lie beside them.

The folder of the weights has a folder `exports` with a file for each, `onnx-fp32.onnx`,
`openvino-int8.xml` (and `.bin`), ... Which one is used unless another is asked for stands in the
MLmodel file around it, as `flavor` of the Python function's configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from unetexp.errors import ConfigError, not_a_choice
from unetexp.runtimes.description import Format, Precision
from unetexp.runtimes.runtime import FORMATS, format_module

T = TypeVar("T")

PYTORCH = "pytorch"
FOLDER = "exports"
KEY = "flavor"
_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
_MLMODEL = "MLmodel"


def flavor_named(name: str) -> tuple[Format, Precision] | None:
    """The format and the precision of `openvino-int8`, or of `onnx`, in fp32; None for others."""
    target, _, precision = name.strip().lower().partition("-")
    format_ = next((known for known in FORMATS if known == target), None)
    given = next((known for known in _PRECISIONS if known == (precision or "fp32")), None)
    return None if format_ is None or given is None else (format_, given)


def exports_beside(folder: Path) -> dict[str, Path]:
    """The exported files beside the weights in `folder`, by name."""
    inside = folder / FOLDER
    found = {}
    for path in sorted(inside.iterdir()) if inside.is_dir() else ():
        named = flavor_named(path.stem)
        if named and path.suffix.lower() in format_module(named[0]).SUFFIXES:
            found[path.stem] = path
    return found


def usual_flavor(folder: Path) -> str:
    """What the model in `folder` was promoted to be used with."""
    file = folder.parent / _MLMODEL
    if not file.is_file():
        return PYTORCH
    import yaml  # a server of exported files does without

    described = yaml.safe_load(file.read_text("utf-8")) or {}
    config = described.get("flavors", {}).get("python_function", {}).get("config") or {}
    return str(config.get(KEY) or PYTORCH)


def file_of_flavor(folder: Path, asked: str | None = None) -> Path | None:
    """The exported file to use of the model in `folder`; None: its weights.

    `asked` is `pytorch` or the name of an export; None: what the model was promoted with. Raises
    ConfigError for one that the model does not have.
    """
    return chosen_file(exports_beside(folder), asked or usual_flavor(folder))


def chosen_file(exports: Mapping[str, T], asked: str) -> T | None:
    """Of `exports`, by name, the one that is asked for; None for `pytorch`; or ConfigError."""
    if asked.strip().lower() == PYTORCH:
        return None
    named = flavor_named(asked)
    name = "-".join(named) if named else asked
    if name not in exports:
        raise ConfigError(not_a_choice("flavor", asked, [PYTORCH, *exports]))
    return exports[name]
