"""Label maps: the label that belongs to no class, and the check that all others belong to one."""

from __future__ import annotations

import torch
from torch import Tensor

from unetexp.errors import DataError, listed

VOID = 255  # as in Pascal VOC and Cityscapes: left out of every loss and every metric


def valid_pixels(
    labels: Tensor, num_classes: int, void: int | None = VOID, *, where: str = "mask"
) -> Tensor:
    """Where `labels`, an integer map of any shape, is not void: bool, of the same shape.

    With `void` None no label is. Raises DataError naming the labels that are neither void nor in
    0..num_classes-1; on a GPU this waits for the map, because using such a label as an index
    there would end the whole process.
    """
    in_range = (labels >= 0) & (labels < num_classes)
    allowed = in_range if void is None else in_range | (labels == void)
    if not allowed.all():
        found = torch.unique(labels[~allowed]).tolist()
        raise DataError(
            f"{where}: label {listed(found)} belongs to no class. {num_classes} classes have the "
            f"labels 0 to {num_classes - 1}"
            + ("" if void is None else f", and {void} is void")
            + ": correct the labels or the number of classes."
        )
    return in_range if void is None else labels != void


def is_integer(labels: Tensor) -> bool:
    """Whether `labels` is of an integer type (bool counts as one)."""
    return not labels.is_floating_point() and not labels.is_complex()
