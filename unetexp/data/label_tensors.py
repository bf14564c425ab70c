"""Checks of label maps that are tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from unetexp.compute.on_device import on_host
from unetexp.data.labels import VOID, stray_labels


def stray_pixels(
    labels: Tensor, num_classes: int, void: int | None = VOID, *, where: str = "mask"
) -> Tensor:
    """Where `labels`, an int64 map of any shape, is neither void nor a class: bool, same shape.

    With `void` None no label is void. On the CPU a map with such pixels raises DataError, which
    names their labels. On another device the host does not wait for the answer: there, leave
    these pixels out, because such a label as an index would end the whole process.
    """
    known = (labels >= 0) & (labels < num_classes)
    if void is not None:
        known |= labels == void
    stray = ~known
    if on_host(labels) and stray.any():
        raise stray_labels(torch.unique(labels[stray]).tolist(), num_classes, void, where)
    return stray


def is_integer(labels: Tensor) -> bool:
    """Whether `labels` is of an integer type (bool counts as one)."""
    return not labels.is_floating_point() and not labels.is_complex()
