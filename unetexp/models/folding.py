"""Frozen parts with batch norm folded into the convolution before it.

A batch norm in eval mode scales and shifts each channel, which a convolution's weight and bias can
do as well. The folded copies lie beside the modules: state dicts, copies and pickles leave them
out.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

_UNCOUNTED = -1  # tensors made in inference mode have no version


class FoldedParts:
    """Folded copies of frozen parts, by name; each is made again when its part has changed."""

    def __init__(self) -> None:
        self._copies: dict[str, _FoldedPart] = {}

    def of(
        self, name: str, modules: Sequence[nn.Module], dtype: torch.dtype
    ) -> Sequence[nn.Module]:
        """`modules`, which follow each other and are in eval mode, folded; weights have `dtype`.

        While they are compiled or have forward hooks they come back as they are: the compiler
        fuses batch norm itself, and a hook shall be called. So do those made in inference mode.
        """
        if torch.compiler.is_compiling():
            return modules
        folded = self._copies.get(name)
        if folded is None or not folded.is_current(dtype):
            folded = self._copies[name] = _FoldedPart(modules, dtype)
        return folded.modules if folded.is_usable else modules

    def clear(self) -> None:
        """Forget all copies, as after changes that torch does not count (to `tensor.data`)."""
        self._copies.clear()

    def __deepcopy__(self, memo: object) -> FoldedParts:
        return FoldedParts()

    def __reduce__(self) -> tuple[type[FoldedParts], tuple[()]]:
        return FoldedParts, ()


class _FoldedPart:
    """Folded modules, and the state of the originals from which they were made."""

    def __init__(self, modules: Sequence[nn.Module], dtype: torch.dtype) -> None:
        parts = [module for part in modules for module in part.modules()]
        self._dtype = dtype
        self._hooks = [hooks for m in parts for hooks in (m._forward_hooks, m._forward_pre_hooks)]
        self._tensors = [tensors for m in parts for tensors in (m._parameters, m._buffers)]
        self._made_of = self._now()
        self._versions = _versions(self._made_of)
        with torch.inference_mode(False), torch.no_grad():
            self.modules = [_folded(nn.Sequential(*modules), dtype)]

    @property
    def is_usable(self) -> bool:
        """False for modules with hooks, and for tensors whose changes torch does not count."""
        return not any(self._hooks) and _UNCOUNTED not in self._versions

    def is_current(self, dtype: torch.dtype) -> bool:
        now = self._now()
        return (
            dtype is self._dtype
            and len(now) == len(self._made_of)
            and all(new is old for new, old in zip(now, self._made_of, strict=True))
            and _versions(now) == self._versions
        )

    def _now(self) -> list[Tensor]:
        return [t for tensors in self._tensors for t in tensors.values() if t is not None]


def _versions(tensors: Sequence[Tensor]) -> list[int]:
    return [_UNCOUNTED if t.is_inference() else t._version for t in tensors]


def _folded(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy in which each batch norm after a convolution is gone; other tensors are shared."""
    twin = _shallow(module)
    children = list(module.named_children())
    for name, child in children:
        twin.add_module(name, _folded(child, dtype))
    for (name, conv), (after, norm) in pairwise(children):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, _BatchNorm):
            twin.add_module(name, _fused(conv, norm, dtype))
            twin.add_module(after, nn.Identity())
    return twin


def _shallow(module: nn.Module) -> nn.Module:
    twin = copy.copy(module)
    twin._modules = {}
    return twin


def _fused(conv: nn.Conv2d, norm: _BatchNorm, dtype: torch.dtype) -> nn.Module:
    """The convolution that computes both, its weight and bias rounded to `dtype` only once."""
    wide = torch.promote_types(conv.weight.dtype, torch.float32)
    assert norm.running_mean is not None and norm.running_var is not None
    assert conv.bias is None
    weight, bias = fuse_conv_bn_weights(
        conv.weight.to(wide),
        None,
        norm.running_mean.to(wide),
        norm.running_var.to(wide),
        norm.eps,
        norm.weight.to(wide),
        norm.bias.to(wide),
    )
    twin = _shallow(conv)
    twin._parameters = {
        "weight": nn.Parameter(weight.to(dtype), requires_grad=False),
        "bias": nn.Parameter(bias.to(dtype), requires_grad=False),
    }
    return twin
