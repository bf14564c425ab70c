"""int8 in a .pt2: torchao's quantisation of exported graphs, for x86 processors."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unetexp.export.formats.pt2_file import SUFFIX, describe, save
from unetexp.export.subject import Subject
from unetexp.runtimes.installed import required

__all__ = ["SUFFIX", "describe", "require_installed", "write"]


def require_installed() -> None:
    """See `Writer`."""
    required("torchao", "pt2", "an export to pt2 in int8")


def write(subject: Subject, path: Path) -> None:
    """See `Writer`. Weights have a scale for each channel, values one for each layer.

    The convolution that makes the logits stays in fp32.
    """
    save(subject.exported(_quantised(subject)), path)


def _quantised(subject: Subject) -> nn.Module:
    """The network as a graph with quantised weights and the rounding of values written out."""
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)  # torchao's deprecated call
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config())
    for name, part in subject.network.named_modules():
        if name.rpartition(".")[2] == "head" and isinstance(part, nn.Conv2d):
            quantizer.set_module_name_qconfig(name, None)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        # Not strict, it fails on a ResNet's ReLU modules, which are called twice.
        graph: Any = subject.exported(subject.network, strict=True).module(check_guards=False)
        prepared = prepare_pt2e(graph, quantizer)
        for images in subject.calibration:
            prepared(torch.from_numpy(images))
        converted: nn.Module = convert_pt2e(prepared)
    _forget_unused(converted)
    return converted


def _forget_unused(graph: Any) -> None:
    """Drop the weights that the quantised ones have replaced."""
    used = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    for name in [*dict(graph.named_parameters()), *dict(graph.named_buffers())]:
        if name not in used:
            owner, _, own = name.rpartition(".")
            delattr(graph.get_submodule(owner), own)
