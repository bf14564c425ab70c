"""Reading .pt2 archives without running anything that they bring.

`torch.export.load` unpickles tensors, constants and example inputs where the archive says so, loads
compiled libraries, evaluates the formulas of sizes, calls functions by their names and makes Python
code of the names of nodes. The archives that `unetexp export` writes need none of that beyond
operators on tensors and names. What is not of that form is refused before torch sees it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram
from torch.export.pt2_archive import PT2ArchiveReader
from torch.export.pt2_archive._package import load_pt2

from unetexp.errors import CheckpointError
from unetexp.runtimes.description import KEY

_MODEL = "models/model.json"
_CONFIGS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"
_EXAMPLE = "data/sample_inputs/model.pt"
_DESCRIPTION = f"extra/{KEY}"
_OTHERS = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|archive_format|archive_version|byteorder"
    r"|\.data/(version|serialization_id)"
)
_NAME = re.compile(r"[\w.]*")
_VERSION = re.compile(r"[\w.+]*")
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed)\.\w+\.\w+"
    r"|_operator\.(add|sub|mul|neg|mod|floordiv|truediv|getitem|eq|ne|lt|le|gt|ge)"
    r"|torch\.sym_(int|float|max|min|not|ite)"
)
_SYMBOL = re.compile(r"Symbol\('\w+'(, (positive|nonnegative|integer)=True)*\)")
_FORMULA = re.compile(
    r"(Integer|Add|Mul|Pow|Max|Min|FloorDiv|CleanDiv|CeilDiv|IntTrueDiv|Mod|PythonMod"
    r"|ModularIndexing|Where|Equality|Unequality|StrictLessThan|LessThan|StrictGreaterThan"
    r"|GreaterThan|And|Or|Not|Piecewise|ToFloat|true|false|[-\d(),\s])*"
)
_TREE = re.compile(r'[\[\]{}:,\s]|\d+|null|"[\w.\[\]]*"')  # no escaped quotes: nothing nested


def read_program(path: Path) -> tuple[ExportedProgram, str | None]:
    """The graph in an archive, and the description beside it.

    Raises CheckpointError for one that is damaged or holds what would run when it is read.
    """
    try:
        with PT2ArchiveReader(str(path)) as archive:
            text = _checked(archive, path)
    except CheckpointError:
        raise
    except Exception as error:  # RuntimeError of the archive, KeyError and others of its JSON
        raise CheckpointError(f"{path}: no .pt2 archive that can be read: {error}") from None
    import torch.ao.quantization.fx._decomposed  # noqa: F401  registers what int8 graphs call

    try:
        # Not torch.export.load, which falls back on an older form with pickles.
        return load_pt2(str(path)).exported_programs["model"], text
    except Exception as error:  # whatever the deserialiser stumbles over
        raise CheckpointError(f"{path}: torch cannot load this archive: {error}") from None


def _checked(archive: PT2ArchiveReader, path: Path) -> str | None:
    """The description in the archive, which is of the form that is written."""
    for name in archive.get_file_names():
        if name in (_MODEL, *_CONFIGS, _EXAMPLE, _DESCRIPTION) or _OTHERS.fullmatch(name):
            continue
        raise _refused(path, f"the entry {name!r}")
    if archive.read_bytes(_EXAMPLE):
        raise _refused(path, "pickled example inputs")
    for config in _CONFIGS:
        for entry, meta in json.loads(archive.read_string(config))["config"].items():
            if meta["use_pickle"] or not _OTHERS.fullmatch(_folder(config) + meta["path_name"]):
                raise _refused(path, f"{entry!r} as a pickle")
    _check_graph(json.loads(archive.read_string(_MODEL)), path)
    names = archive.get_file_names()
    return archive.read_string(_DESCRIPTION) if _DESCRIPTION in names else None


def _folder(name: str) -> str:
    return name.rpartition("/")[0] + "/"


def _check_graph(model: dict[str, Any], path: Path) -> None:
    if model.pop("guards_code", None):
        raise _refused(path, "code of guards")
    for key, value in _strings(model):
        if key == "target":
            allowed = bool(_OPERATOR.fullmatch(value))
        elif key == "expr_str":
            allowed = bool(_FORMULA.fullmatch(_SYMBOL.sub("", value)))
        elif key in ("in_spec", "out_spec"):
            allowed = not _TREE.sub("", value)
        elif key == "torch_version":
            allowed = bool(_VERSION.fullmatch(value))
        else:
            allowed = bool(_NAME.fullmatch(value))
        if not allowed:
            raise _refused(path, f"the {key} {value[:80]!r}")


def _strings(tree: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All strings below, with the key that each stands under; keys are names as well."""
    if isinstance(tree, str):
        yield key, tree
    elif isinstance(tree, dict):
        for name, value in tree.items():
            yield "name", name
            yield from _strings(value, name)
    elif isinstance(tree, list):
        for value in tree:
            yield from _strings(value, key)


def _refused(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: it holds {what}, which would be run or unpickled when it is read; files that "
        "`unetexp export` writes hold no such thing. Export the model again."
    )
