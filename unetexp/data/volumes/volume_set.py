"""All volumes of a folder, checked together, and the slices of each as pixels and labels.

X Y Z voxels in RAS+, S slices of a volume, C channels, H W image size.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from unetexp.data.collection import Labels, Progress, RawImage
from unetexp.data.reading.input_form import VolumeForm
from unetexp.data.threads import mapped_and_told
from unetexp.data.volumes.case import Case
from unetexp.data.volumes.cases import find_cases
from unetexp.data.volumes.description import Description, read_description
from unetexp.data.volumes.intensity import WIDE, Scale, Window, is_hounsfield, named_mri
from unetexp.data.volumes.slices import (
    AXES,
    Axis,
    as_slices,
    in_plane,
    resampled_images,
    resampled_labels,
    resampled_size,
)
from unetexp.data.volumes.volume import (
    Affine,
    Header,
    check_together,
    read_header,
    read_labels,
    read_volume,
)
from unetexp.errors import DataError


@dataclass(frozen=True)
class Slicing:
    """How volumes become slices; the fields of the source `nifti`."""

    axis: Axis
    window: Window | None
    bits: Literal[8, 16] | None
    spacing_mm: float | None
    check_affines: bool
    zeros: bool = False  # stand for channels that a case lacks


@dataclass(frozen=True)
class VolumeSet:
    """The cases and what is known before their voxels are read."""

    slicing: Slicing
    cases: Mapping[str, Sequence[Case]]  # by split, "" where none is given
    headers: Mapping[str, Header]  # of each case's first volume, by the case's name
    turns: Mapping[str, Affine]  # by which each case's label is turned to RAS+
    description: Description
    scales: tuple[Scale, ...]  # one a channel

    def every(self) -> list[Case]:
        """All cases."""
        return list(itertools.chain(*self.cases.values()))

    def form(self) -> VolumeForm:
        """How further volumes are cut into slices in the same way."""
        return VolumeForm(
            axis=self.slicing.axis,
            windows=tuple(scale.window for scale in self.scales),
            bits=self.scales[0].bits,
            spacing_mm=self.slicing.spacing_mm,
        )

    def count(self, case: Case) -> int:
        """S of a case."""
        return self.headers[case.name].shape[AXES[self.slicing.axis]]

    def size(self, case: Case) -> tuple[int, int]:
        """(H, W) of a case's slices."""
        header, axis = self.headers[case.name], self.slicing.axis
        size = in_plane(header.shape, axis)
        if self.slicing.spacing_mm is None:
            return size
        return resampled_size(size, in_plane(header.spacing_mm, axis), self.slicing.spacing_mm)

    def pixel_mm(self, case: Case) -> tuple[float, float]:
        """Height and width of a pixel of a case's slices."""
        header, axis = self.headers[case.name], self.slicing.axis
        stored = zip(in_plane(header.shape, axis), in_plane(header.spacing_mm, axis), strict=True)
        extent, size = [pixels * mm for pixels, mm in stored], self.size(case)
        return extent[0] / size[0], extent[1] / size[1]

    def images(self, case: Case) -> RawImage:
        """The slices (C, S, H, W) of a case, uint8 or uint16; 0 where a file is missing."""
        pixels, size, scales = [], self.size(case), iter(self.scales)
        for path in case.images:
            if path is None:
                kind = np.uint8 if next(scales).bits == 8 else np.uint16
                pixels.append(np.zeros((self.count(case), *size), kind))
                continue
            for volume in read_volume(path):
                scale = next(scales)
                slices = as_slices(scale.unit(volume), self.slicing.axis)
                pixels.append(scale.pixels(resampled_images(slices, size)))
        return np.stack(pixels)

    def labels(self, case: Case) -> Labels:
        """The slices (S, H, W) of a case's label, before the set's label map."""
        labels = read_labels(case.label, self.turns[case.name], self.description.ignored)
        slices = as_slices(labels, self.slicing.axis)
        return np.ascontiguousarray(resampled_labels(slices, self.size(case)))


def open_volumes(root: Path, slicing: Slicing, on_progress: Progress | None = None) -> VolumeSet:
    """The cases below `root`, their headers read and compared. Raises DataError."""
    cases, description = find_cases(root, slicing.zeros), read_description(root)
    every = list(itertools.chain(*cases.values()))
    headers: dict[str, Header] = {}
    turns: dict[str, Affine] = {}
    checked = partial(_checked, description=description, affines=slicing.check_affines)
    channels: dict[str, int] = {}
    read = mapped_and_told(checked, every, "Reading headers", on_progress)
    for case, (found, turn) in zip(every, read, strict=True):
        turns[case.name] = turn
        headers[case.name] = found[0]
        channels[case.name] = sum(header.channels for header in found) + len(case.missing)
    _check_channels(every, channels)
    scales = _scales(every, channels[every[0].name], description, slicing)
    return VolumeSet(slicing, cases, headers, turns, description, scales)


def _checked(case: Case, description: Description, affines: bool) -> tuple[list[Header], Affine]:
    """The headers of a case's volumes, and what its label is turned by."""
    headers = [read_header(path, len(description.channels)) for path in case.images if path]
    return headers, check_together(case, headers, read_header(case.label), affines=affines)


def _check_channels(cases: Sequence[Case], channels: Mapping[str, int]) -> None:
    wanted = channels[cases[0].name]
    other = [case for case in cases if channels[case.name] != wanted]
    if other:
        raise DataError(
            f"{other[0].images[0]}: this volume has {channels[other[0].name]} channels, that of "
            f"{cases[0].name} {wanted}. All volumes need the same channels."
        )


def _scales(
    cases: Sequence[Case], channels: int, description: Description, slicing: Slicing
) -> tuple[Scale, ...]:
    """The scale of each channel: CT by the window or a wide one, others by percentiles."""
    ct = [description.is_ct(channel) for channel in range(channels)]
    if slicing.window:
        windows = [slicing.window if each or not any(ct) else None for each in ct]
    elif description.channels:
        windows = [WIDE if each else None for each in ct]
    else:
        files = [
            next(filter(None, those)) for those in zip(*(c.images for c in cases), strict=True)
        ]
        volumes = itertools.chain.from_iterable(map(read_volume, files))
        names = itertools.chain(cases[0].channels, itertools.repeat(""))
        windows = [
            WIDE if is_hounsfield(volume) and not named_mri(name) else None
            for volume, name in zip(volumes, names, strict=False)
        ]
    wide = not slicing.window and WIDE in windows
    return tuple(Scale(window, slicing.bits or (16 if wide else 8)) for window in windows)
