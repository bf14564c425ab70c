"""TorchScript, by tracing: one file for libtorch (C++, mobile) and torch alone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unetexp.export.formats.halves import in_precision
from unetexp.export.subject import Subject
from unetexp.runtimes.description import KEY

SUFFIX = ".pt"
_JIT: Any = torch.jit  # carries no types


def require_installed() -> None:
    """See `Writer`; torch is there."""


def write(subject: Subject, path: Path) -> None:
    """See `Writer`. In fp16 everything between input and output is computed in halves."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's, deprecated in favour of torch.export
        network = in_precision(subject)
        traced = _JIT.trace(network, (subject.example,), check_trace=False)
        _require_any_size(traced, network, subject)
        _JIT.save(_JIT.freeze(traced), path)  # batch norm is folded


def describe(path: Path, text: str) -> None:
    """See `Writer`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _JIT.save(_JIT.load(path, map_location="cpu"), path, _extra_files={KEY: text})


def _require_any_size(traced: Any, network: nn.Module, subject: Subject) -> None:
    """UserError if tracing, which says nothing, has taken the example's size for a constant."""
    height, _ = subject.size_axes
    images = subject.example[:1].narrow(height, 0, subject.example.shape[height] // 2)
    try:
        same = torch.allclose(traced(images).float(), network(images).float(), atol=1e-3)
    except RuntimeError:  # shapes that do not fit
        same = False
    if not same:
        raise subject.of_one_size("x".join(map(str, subject.example.shape)))
