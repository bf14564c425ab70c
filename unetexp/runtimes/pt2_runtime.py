"""torch.export's archives, run by torch as graphs of its operators.

int8 is computed here as it is written, value by value, which shows what it costs in quality and is
slower than fp32: it takes a backend that fuses (torch.compile with `freezing`, ExecuTorch) to win.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from unetexp.runtimes.installed import required_torch
from unetexp.runtimes.runtime import LoadedFile

SUFFIXES = (".pt2",)


def recognises(path: Path, head: bytes) -> bool:
    """By the entry that holds the graph."""
    if not head.startswith(b"PK") or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/models/model.json") for name in archive.namelist())


def load_file(path: Path, device: str, threads: int | None) -> LoadedFile:
    """See `FormatModule`."""
    torch = required_torch(f"{path}, an archive of torch.export,")
    from unetexp.runtimes.pt2_archive import read_program
    from unetexp.runtimes.torch_network import run_with_torch, torch_device

    place = torch_device(device)
    program, text = read_program(path)
    # The guards would refuse a batch of one or a side of 32 pixels, which the graph computes.
    network = program.module(check_guards=False).to(place)
    name = f"torch {torch.__version__.partition('+')[0]}"
    return LoadedFile(text, run_with_torch(network, place, threads), name, place.type)
