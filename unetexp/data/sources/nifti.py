"""Slices of CT and MRI volumes in NIfTI files.

The slices of a volume are one group, so that a drawn split has no patient in two of its parts.

X Y Z voxels in RAS+, S slices of a volume, C channels, H W image size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field

from unetexp.data.collection import Labels, Progress, RawImage
from unetexp.data.files.file_sample import FileReader, FileSample, Listing
from unetexp.data.files.given_splits import given_splits
from unetexp.data.reading.input_form import FULL_16
from unetexp.data.sources.file_source import FileSource, absolute
from unetexp.data.volumes.case import Case
from unetexp.data.volumes.cases import looks_like_volumes, unused
from unetexp.data.volumes.chosen_slices import Choice
from unetexp.data.volumes.intensity import PERCENTILES, WIDE, WINDOWS, known_window
from unetexp.data.volumes.kept import Kept
from unetexp.data.volumes.slices import Axis, in_plane
from unetexp.data.volumes.volume_set import Slicing, VolumeSet, open_volumes
from unetexp.errors import DataError, listed

_KEPT_VOLUMES = 2  # in memory: threads read ahead from one into the next
_SQUARE = 1.05  # pixels whose sides differ by less are square


class Nifti(FileSource):
    """Slices along an axis of volumes with labels, as uint8 or uint16 images.

    Volumes are turned to RAS+: in an axial slice the front is on top and the patient's right on
    the right, in the others the head is on top. The names of the classes are those in dataset.json.
    """

    first_fields: ClassVar[tuple[str, ...]] = ("kind", "root")

    kind: Literal["nifti"] = "nifti"
    root: Annotated[str, Field(min_length=1), AfterValidator(absolute)] = Field(
        description="the folder with imagesTr and labelsTr, images and masks, CASE.nii.gz "
        "beside CASE_seg.nii.gz, or a folder each case, with imaging.nii.gz and "
        "segmentation.nii.gz or the like"
    )
    axis: Axis = Field("axial", description="the slices' direction")
    window: Annotated[str | tuple[float, float] | None, BeforeValidator(known_window)] = Field(
        None,
        description="the Hounsfield units of black and white, as [low, high] or by name: "
        + ", ".join(f"{name} [{low:g}, {high:g}]" for name, (low, high) in WINDOWS.items())
        + f"; null: CT from {WIDE[0]:g} to {WIDE[1]:g} HU, others by each volume's percentiles "
        f"{PERCENTILES[0]:g} and {PERCENTILES[1]:g}",
    )
    bits: Literal[8, 16] | None = Field(
        None,
        description="bits of a pixel; null: 8, and 16 for CT without a window",
    )
    spacing_mm: float | None = Field(
        None,
        gt=0,
        description="millimetres of a pixel to which slices are resampled, the image linear and "
        "the labels by the nearest; null: as stored",
    )
    min_foreground: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of a slice that must belong to a class other than 0, else it is left "
        "out",
    )
    keep_empty: float = Field(
        1.0, ge=0, le=1, description="share of the slices without any such class that is kept"
    )
    affines: Literal["check", "ignore"] = Field(
        "check",
        description="whether a label must lie on its volume by the headers' affines, each turned "
        "by its own, or is laid on it voxel by voxel as both are stored",
    )

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """Whether there are NIfTI files at a usual place."""
        return root.is_dir() and looks_like_volumes(root)

    def listing(self, on_progress: Progress | None = None) -> Listing:
        """The slices of all volumes; headers are read, voxels only where slices are left out."""
        root, volumes = Path(self.root), open_volumes(Path(self.root), self._slicing(), on_progress)
        chosen = Choice(self.min_foreground, self.keep_empty).of(volumes, on_progress)
        samples = {
            split: [sample for case in cases for sample in self._slices(case, chosen[case.name])]
            for split, cases in volumes.cases.items()
        }
        for split, members in samples.items():
            if not members:
                raise DataError(
                    f"{root}: no slice is left{f' in {split}' if split else ''}: choose a smaller "
                    "data.min_foreground or a larger data.keep_empty."
                )
        names = None if self.label_map else volumes.description.class_names
        notes = (*_reading_notes(volumes), *_left_out(volumes, chosen), *_unused(root, volumes))
        given = given_splits(
            root,
            samples,
            names,
            test_fraction=self.test_fraction,
            method="folders",
            notes=notes,
        )
        ignored = volumes.description.ignored
        return given if ignored is None else replace(given, void=f"{ignored} (in dataset.json)")

    def reader(self) -> FileReader:
        """Slices of volumes, of which a few are kept in memory."""
        volumes = open_volumes(Path(self.root), self._slicing())
        cases = {case.label: case for case in volumes.every()}
        images = Kept[Path, RawImage](lambda label: volumes.images(cases[label]), _KEPT_VOLUMES)
        labels = Kept[Path, Labels](lambda label: volumes.labels(cases[label]), _KEPT_VOLUMES)

        def image(sample: FileSample) -> RawImage:
            return np.ascontiguousarray(images(sample.mask)[:, _index(sample)])

        def mask(sample: FileSample) -> Labels:
            return np.ascontiguousarray(labels(sample.mask)[_index(sample)])

        scales = [(scale.window, scale.bits) for scale in volumes.scales]
        told = [2, scales, self.spacing_mm, self.affines, volumes.description.ignored]
        name = f"nifti {json.dumps(told)}"
        return FileReader(name, image, mask, image_max=FULL_16, volumes=volumes.form())

    def spacings_mm(self, names: Sequence[str]) -> Mapping[str, tuple[float, float]]:
        """Of each slice, from the header of its volume."""
        volumes = open_volumes(Path(self.root), self._slicing())
        pixels = {case.name: volumes.pixel_mm(case) for case in volumes.every()}
        return {name: pixels[name.rpartition(f"_{self.axis}_")[0]] for name in names}

    def _of_few_groups(self) -> str:
        return super()._of_few_groups() or (
            "The slices of a patient are one group, since they resemble each other, and one volume "
            "cannot be split: add labelled volumes of other patients."
        )

    def _slicing(self) -> Slicing:
        window = WINDOWS[self.window] if isinstance(self.window, str) else self.window
        return Slicing(
            self.axis,
            window,
            self.bits,
            self.spacing_mm,
            self.affines == "check",
            self.missing == "zeros",
        )

    def _slices(self, case: Case, indices: Sequence[int]) -> list[FileSample]:
        return [
            FileSample(
                f"{case.name}_{self.axis}_{index:03d}",
                case.images,
                case.label,
                part=f"{self.axis} {index}",
                group=case.group,
            )
            for index in indices
        ]


def _index(sample: FileSample) -> int:
    return int(sample.part.split()[1])


def _reading_notes(volumes: VolumeSet) -> list[str]:
    """How voxels become pixels."""
    slicing, notes = volumes.slicing, []
    names = volumes.description.channels or volumes.every()[0].channels
    names = names or tuple(f"channel {i}" for i in range(len(volumes.scales)))
    for name, scale in zip(names, volumes.scales, strict=True):
        channel = f"{name}: " if len(names) > 1 or volumes.description.channels else ""
        if scale.window is None:
            how = (
                f"each volume's percentiles {PERCENTILES[0]:g} to {PERCENTILES[1]:g} of the voxels "
                "that are not 0 become black and white"
            )
        else:
            low, high = scale.window
            how = f"{low:g} to {high:g} Hounsfield units become black and white"
        notes.append(f"{channel}{how}, in {scale.bits} bits.")
    lacking = [f"{case.name} lacks {_channels(case)}" for case in volumes.every() if case.missing]
    if lacking:
        notes.append(f"Volumes that are missing are read as zeros: {listed(lacking)}.")
    if slicing.window is None and any(scale.window == WIDE for scale in volumes.scales):
        notes.append(
            "The volumes are CT and no window is set: a narrower one shows more, such as "
            f"--set data.window=soft_tissue (there are {', '.join(WINDOWS)})."
        )
    oblong = _oblong(volumes)
    if oblong:
        notes.append(oblong)
    return notes


def _channels(case: Case) -> str:
    return " and ".join(case.channels[i] if case.channels else f"{i:04d}" for i in case.missing)


def _oblong(volumes: VolumeSet) -> str:
    """A note if pixels are not square and stay so."""
    if volumes.slicing.spacing_mm is not None:
        return ""
    for name, header in volumes.headers.items():
        rows, columns = in_plane(header.spacing_mm, volumes.slicing.axis)
        if max(rows, columns) > _SQUARE * min(rows, columns):
            return (
                f"The pixels of {name} are {rows:.2g} x {columns:.2g} mm (height x width), not "
                f"square: --set data.spacing_mm={min(rows, columns):.2g} resamples them."
            )
    return ""


def _unused(root: Path, volumes: VolumeSet) -> list[str]:
    files = unused(root, volumes.every())
    if not files:
        return []
    return [
        f"{len(files)} NIfTI files belong to no labelled case and are left out: {listed(files)}."
    ]


def _left_out(volumes: VolumeSet, chosen: Mapping[str, Sequence[int]]) -> list[str]:
    total = sum(volumes.count(case) for case in volumes.every())
    kept = sum(len(indices) for indices in chosen.values())
    if kept == total:
        return []
    return [
        f"{total - kept} of {total} slices are left out for their foreground, in every split: the "
        "figures say nothing of such slices."
    ]
