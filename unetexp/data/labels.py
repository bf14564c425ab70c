"""Label maps: the label that belongs to no class, and the check that all others belong to one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unetexp.compute.on_device import on_host
from unetexp.errors import DataError, listed

VOID = 255  # as in Pascal VOC and Cityscapes: left out of every loss and every metric


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


def stray_labels(found: Sequence[int], num_classes: int, void: int | None, where: str) -> DataError:
    """The error about the labels `found`, which belong to no class."""
    return DataError(
        f"{where}: label {listed(found)} belongs to no class. {num_classes} classes have the "
        f"labels 0 to {num_classes - 1}"
        + ("" if void is None else f", and {void} is void")
        + ": correct the labels or the number of classes."
    )


def is_integer(labels: Tensor) -> bool:
    """Whether `labels` is of an integer type (bool counts as one)."""
    return not labels.is_floating_point() and not labels.is_complex()
