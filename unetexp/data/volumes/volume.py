"""Reading NIfTI volumes, turned so that their axes are right, anterior, superior (RAS+).

X Y Z voxels, to the right, to the front and up; C channels.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.affines import voxel_sizes
from nibabel.orientations import (
    apply_orientation,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from unetexp.data.collection import Labels
from unetexp.data.labels import VOID
from unetexp.data.volumes.case import Case
from unetexp.errors import DataError

Affine = npt.NDArray[np.float64]

_RAS = np.array([[0, 1], [1, 1], [2, 1]])  # nibabel's orientation of those axes
_HALF_A_VOXEL = 0.5
_WHOLE = 1e-3  # labels that are stored as floats may be off by this much


@dataclass(frozen=True)
class Header:
    """A volume without its voxels."""

    shape: tuple[int, int, int]  # X, Y, Z in RAS+
    spacing_mm: tuple[float, float, float]
    affine: Affine  # (4, 4) of the file, as stored
    stored_shape: tuple[int, ...]
    channels: int


def read_header(path: Path, named_channels: int = 0) -> Header:
    """The header of a volume. Raises DataError for what is not one volume.

    A fourth axis is taken as channels where it is as long as `named_channels`.
    """
    image = _open(path)
    shape = tuple(image.shape)
    channels = 1
    if len(shape) == 4 and shape[3] in (1, named_channels):
        channels = shape[3]
    elif len(shape) != 3:
        raise DataError(
            f"{path}: this volume has {len(shape)} axes ({_times(shape)}), and 3 are wanted. "
            "If the last one counts channels (modalities), name them in dataset.json as "
            "channel_names; if it is time, store each moment as a file of its own."
        )
    if 0 in shape:
        raise DataError(f"{path}: this volume is empty ({_times(shape)}).")
    turned = io_orientation(image.affine)[:, 0]
    if np.isnan(turned).any():
        raise DataError(f"{path}: the header gives a voxel no extent (affine): correct it.")
    order = np.argsort(turned)
    zooms = voxel_sizes(image.affine)
    return Header(
        tuple(int(shape[axis]) for axis in order),  # type: ignore[arg-type]
        tuple(float(zooms[axis]) for axis in order),  # type: ignore[arg-type]
        np.asarray(image.affine, np.float64),
        shape,
        channels,
    )


def read_volume(path: Path) -> npt.NDArray[np.float32]:
    """The voxels (C, X, Y, Z) in RAS+."""
    image = _open(path)
    return np.asarray(_turned(_voxels(path, image), image.affine), np.float32)


def read_labels(path: Path, affine: Affine, ignored: int | None) -> Labels:
    """The labels (X, Y, Z) in RAS+, turned by `affine` of `check_together`; `ignored` is void."""
    values = _turned(_voxels(path, _open(path)), affine)[0]
    if values.dtype.kind not in "iub":
        values = _whole(path, values)
    if ignored is not None:
        values = np.where(values == ignored, VOID, values)
    if values.min() < 0 or values.max() > VOID:
        stray = values.min() if values.min() < 0 else values.max()
        raise DataError(
            f"{path}: the label holds {stray:g}. Labels go from 0 to 254, and 255 is void: store "
            "the number of the class in each voxel."
        )
    return np.asarray(values, np.uint8)


def write_labels(path: Path, labels: Labels, like: Path) -> None:
    """Write labels (X, Y, Z) in RAS+ as a volume that lies on the voxels of the file `like`."""
    source = _open(like)
    back = ornt_transform(_RAS, io_orientation(source.affine))
    image = nibabel.Nifti1Image(apply_orientation(labels, back), source.affine, source.header)
    image.header.set_data_dtype(np.uint8)
    image.header.set_slope_inter(1, 0)
    image.header["cal_min"], image.header["cal_max"] = 0, 0
    path.write_bytes(gzip.compress(image.to_bytes(), 6))


def _voxels(path: Path, image: Any) -> npt.NDArray[Any]:
    """The voxels as stored, scaled where the header says so."""
    try:
        return np.asarray(image.dataobj)
    except Exception as error:  # gzip, zlib, nibabel and numpy each raise their own
        raise _damaged(path, error) from None


def _turned(voxels: npt.NDArray[Any], affine: Affine) -> npt.NDArray[Any]:
    """(X, Y, Z) or (X, Y, Z, C) as stored -> (C, X, Y, Z) in RAS+."""
    stored = voxels[..., np.newaxis] if voxels.ndim == 3 else voxels
    return np.moveaxis(np.asarray(apply_orientation(stored, io_orientation(affine))), 3, 0)


def _whole(path: Path, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Labels that are stored as other numbers, which must be whole."""
    labels: npt.NDArray[Any] = np.rint(values)
    away = ~(np.abs(values - labels) <= _WHOLE)  # also where there is NaN
    if away.any():
        raise DataError(
            f"{path}: the label holds {values[away][0]:g}, which is no whole number: it was "
            "resampled with interpolation, or it is a probability map. Store the number of the "
            "class in each voxel."
        )
    return labels


def check_together(
    case: Case, headers: Sequence[Header], label: Header, *, affines: bool
) -> Affine:
    """The affine by which the label's voxels are turned to RAS+ as its volume's are.

    With `affines` both lie in space as their own headers say; else their arrays belong together
    as they are stored. Raises DataError if the files of a case do not lie on the same voxels.
    """
    there = [path for path in case.images if path is not None]
    for path, header in zip(there, headers, strict=True):
        if affines:
            _check_grid(case, path.name, header, label)
        else:
            _check_shape(case, path.name, header.stored_shape[:3], label.stored_shape[:3])
    return headers[0].affine if not affines or _as_stored(headers[0], label) else label.affine


def _check_shape(case: Case, volume: str, shape: Sequence[int], of_label: Sequence[int]) -> None:
    if tuple(shape) != tuple(of_label):
        raise DataError(
            f"{case.label}: the label has {_times(of_label)} voxels, its volume {volume} "
            f"{_times(shape)}. Resample one onto the other."
        )


def _check_grid(case: Case, volume: str, header: Header, label: Header) -> None:
    if _as_stored(header, label):
        return
    if header.stored_shape[:3] != label.stored_shape[:3]:
        _check_shape(case, volume, header.shape, label.shape)
    turned = header.shape == label.shape
    away = _displacement(_ras(header), _ras(label), label.shape)
    if not turned or away > _HALF_A_VOXEL * min(header.spacing_mm):
        raise DataError(
            f"{case.label}: by their headers the label lies up to {away:.1f} mm away from its "
            f"volume {volume} (affine of origin, spacing and direction). Resample the label "
            "onto the volume; if the voxels do belong together as they are stored and only the "
            "header is wrong: --set data.affines=ignore."
        )


def _as_stored(header: Header, label: Header) -> bool:
    """Whether each voxel lies where that with the same place in the other file lies."""
    shape = header.stored_shape[:3]
    if shape != label.stored_shape[:3]:
        return False
    away = _displacement(header.affine, label.affine, shape)
    return away <= _HALF_A_VOXEL * min(header.spacing_mm)


def _ras(header: Header) -> Affine:
    """The affine of the voxels once they are turned to RAS+."""
    shape = header.stored_shape[:3]
    back = inv_ornt_aff(io_orientation(header.affine), shape)
    return np.asarray(header.affine @ back, np.float64)


def _displacement(first: Affine, second: Affine, shape: Sequence[int]) -> float:
    """The largest distance in mm between the places of the same corner voxel."""
    corners = np.array(np.meshgrid(*([0, size - 1] for size in shape))).reshape(3, -1)
    homogeneous = np.vstack([corners, np.ones(corners.shape[1])])
    return float(np.linalg.norm(((first - second) @ homogeneous)[:3], axis=0).max())


def _open(path: Path) -> Any:
    try:
        return nibabel.load(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except Exception as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: this file is no NIfTI volume, or it is truncated or damaged ({error}). Replace "
        "it, or remove it together with its partner."
    )


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
