"""torch.export's own archive (.pt2): weights as plain bytes and the graph as JSON, no pickle."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.export import ExportedProgram

from unetexp.export.formats.halves import in_precision
from unetexp.export.subject import Subject
from unetexp.runtimes.description import KEY
from unetexp.runtimes.pt2_archive import read_program

SUFFIX = ".pt2"


def require_installed() -> None:
    """See `Writer`; torch is there."""


def write(subject: Subject, path: Path) -> None:
    """See `Writer`. In fp16 everything between input and output is computed in halves."""
    save(subject.exported(in_precision(subject)), path)


def describe(path: Path, text: str) -> None:
    """See `Writer`."""
    program, _ = read_program(path)
    save(program, path, text)


def save(program: ExportedProgram, path: Path, text: str | None = None) -> None:
    """Write the archive with nothing in it that would be unpickled or run when it is read.

    Without the example inputs, which torch pickles, the code of the guards, and the traces of the
    lines that made each node, which name folders of this machine.
    """
    program.example_inputs = None
    program._guards_code = []
    for node in program.graph.nodes:
        for name in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node"):
            node.meta.pop(name, None)
    torch.export.save(program, path, extra_files=None if text is None else {KEY: text})
