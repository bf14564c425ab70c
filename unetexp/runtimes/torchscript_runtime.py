"""TorchScript files, in torch's own interpreter.

Its loader reads tensors and lists with an unpickler in C++ that knows no Python, so nothing in a
file is run in Python; the graph itself is a program of torch's operators.
"""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

from unetexp.errors import CheckpointError
from unetexp.runtimes.description import KEY
from unetexp.runtimes.installed import required_torch
from unetexp.runtimes.runtime import LoadedFile

SUFFIXES = (".pt", ".torchscript")


def recognises(path: Path, head: bytes) -> bool:
    """By the entry that holds the code: checkpoints of torch, which are pickles, have none."""
    if not head.startswith(b"PK") or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def load_file(path: Path, device: str, threads: int | None) -> LoadedFile:
    """See `FormatModule`."""
    torch = required_torch(f"{path}, a TorchScript file,")
    from unetexp.runtimes.torch_network import run_with_torch, torch_device

    place = torch_device(device)
    texts: dict[str, Any] = {KEY: ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated in favour of torch.export
            network = torch.jit.load(path, map_location=place, _extra_files=texts)
    except Exception as error:  # RuntimeError and ValueError of several kinds
        raise CheckpointError(f"{path}: torch cannot load this TorchScript: {error}") from None
    text = texts[KEY]
    return LoadedFile(
        (text.decode() if isinstance(text, bytes) else text) or None,
        run_with_torch(network, place, threads),
        f"torch {torch.__version__.partition('+')[0]}",
        place.type,
    )
