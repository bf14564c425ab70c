"""The label that belongs to no class, and the error about labels that should belong to one."""

from __future__ import annotations

from collections.abc import Sequence

from unetexp.errors import DataError, listed

VOID = 255  # as in Pascal VOC and Cityscapes: left out of every loss and every metric


def stray_labels(found: Sequence[int], num_classes: int, void: int | None, where: str) -> DataError:
    """The error about the labels `found`, which belong to no class."""
    return DataError(
        f"{where}: label {listed(found)} belongs to no class. {num_classes} classes have the "
        f"labels 0 to {num_classes - 1}"
        + ("" if void is None else f", and {void} is void")
        + ": correct the labels or the number of classes."
    )
