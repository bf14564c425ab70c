"""Slices of volumes as images, and the resampling in their plane.

X Y Z voxels in RAS+, S slices, C channels, H W rows and columns of a slice.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from unetexp.data.collection import Labels

Axis = Literal["axial", "coronal", "sagittal"]
T = TypeVar("T", bound=np.generic)
N = TypeVar("N", int, float)

Slices = npt.NDArray[np.float32]

AXES: dict[str, int] = {"sagittal": 0, "coronal": 1, "axial": 2}


def as_slices(volume: npt.NDArray[T], axis: Axis) -> npt.NDArray[T]:
    """(..., X, Y, Z) -> (..., S, H, W): the top row is the front of an axial slice, else the head.

    Columns go to the right, and in sagittal slices to the front.
    """
    first = np.moveaxis(volume, AXES[axis] - 3, -3)  # (..., S, columns, rows from below)
    return first.swapaxes(-1, -2)[..., ::-1, :]


def as_volume(slices: npt.NDArray[T], axis: Axis) -> npt.NDArray[T]:
    """(..., S, H, W) -> (..., X, Y, Z): what `as_slices` undoes."""
    first = slices[..., ::-1, :].swapaxes(-1, -2)
    return np.moveaxis(first, -3, AXES[axis] - 3)


def in_plane(values: tuple[N, N, N], axis: Axis) -> tuple[N, N]:
    """The two of (X, Y, Z) values that belong to the rows and columns of a slice."""
    columns, rows = (value for place, value in enumerate(values) if place != AXES[axis])
    return rows, columns


def resampled_size(
    size: tuple[int, int], spacing_mm: tuple[float, float], wanted_mm: float
) -> tuple[int, int]:
    """(H, W) after resampling to `wanted_mm` a pixel."""
    rows, columns = (
        max(1, round(n * mm / wanted_mm)) for n, mm in zip(size, spacing_mm, strict=True)
    )
    return rows, columns


def resampled_images(slices: Slices, size: tuple[int, int]) -> Slices:
    """(S, h, w) -> (S, H, W), linear; where it shrinks, over all pixels that are covered."""
    if slices.shape[-2:] == size:
        return slices
    tensor = torch.from_numpy(np.ascontiguousarray(slices))[np.newaxis]
    result = functional.interpolate(tensor, size, mode="bilinear", antialias=True)
    return np.asarray(result[0].numpy())


def resampled_labels(slices: Labels, size: tuple[int, int]) -> Labels:
    """(S, h, w) -> (S, H, W), each pixel the label of the nearest one."""
    if slices.shape[-2:] == size:
        return slices
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for new, old in zip(size, slices.shape[-2:], strict=True)
    )
    return slices[:, rows[:, np.newaxis], columns]
