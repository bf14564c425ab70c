"""Labels of volumes, slice by slice, from a model that was trained on slices.

X Y Z voxels in RAS+, S slices, C channels, H W size of a slice.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from unetexp.data.collection import Labels, RawImage
from unetexp.data.reading.formats.detection import SUFFIXES
from unetexp.data.reading.input_form import VolumeForm
from unetexp.data.volumes.case import LABEL_END, by_stem, is_label_word, is_nifti
from unetexp.data.volumes.intensity import Scale
from unetexp.data.volumes.slices import (
    as_slices,
    as_volume,
    in_plane,
    resampled_images,
    resampled_size,
)
from unetexp.data.volumes.volume import read_header, read_volume, write_labels
from unetexp.errors import ConfigError, DataError, UnetexpError, listed
from unetexp.inference.predictor import Predictor
from unetexp.models.image_spec import ImageSpec

_CHANNEL = re.compile(r"(.+)_\d{4}")
ENDING = ".nii.gz"


@dataclass(frozen=True)
class VolumeInput:
    """The files of one volume, and what its labels are called below the folder of results."""

    files: tuple[Path, ...]  # one a channel, or one with all of them
    name: Path

    @property
    def path(self) -> Path:
        """The file that messages name."""
        return self.files[0]


def hold_volumes(given: Sequence[Path]) -> bool:
    """Whether NIfTI volumes are among what is given, and no images."""
    files = [path for place in given for path in _below(place)]
    return any(map(is_nifti, files)) and not any(f.suffix.lower() in SUFFIXES for f in files)


def volume_form(spec: ImageSpec, trained_on: str | None) -> VolumeForm:
    """How the model takes volumes; ConfigError if it does not. `trained_on` is its `data.kind`."""
    if spec.input is not None and spec.input.volumes is not None:
        return spec.input.volumes
    if trained_on == "nifti":
        raise ConfigError(
            "this model was trained on slices of volumes by an earlier version, which did not "
            "record how they were cut. Train it again (`unetexp reproduce`), or give it the slices "
            "as images."
        )
    raise ConfigError(
        "these are NIfTI volumes, and the model was trained on images. Give it the slices as "
        "image files, or train one on volumes: --set data.kind=nifti."
    )


def find_volumes(given: Sequence[Path], out: Path, form: VolumeForm) -> list[VolumeInput]:
    """The volumes among `given` files and below `given` folders; labels are left out.

    Raises ConfigError where they do not have the channels of the form.
    """
    channels = len(form.windows)
    files = [place for place in given if place.is_file()]
    if channels > 1 and len(files) == len(given) == channels:
        return [VolumeInput(tuple(files), Path(_stem(files[0])))]
    found = [VolumeInput((file,), Path(_stem(file))) for file in files]
    for root in (place for place in given if place.is_dir()):
        for folder, below, _ in os.walk(root):
            below[:] = sorted(
                name
                for name in below
                if name[0] != "." and Path(folder, name).resolve() != out.resolve()
            )
            found += _in_folder(root, Path(folder), channels)
    if not found:
        raise DataError(f"{listed(given)}: all NIfTI files here are named as labels.")
    names = [volume.name for volume in found]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"several volumes would be written as {_repeated(names)}{ENDING}: predict them into "
            "different folders."
        )
    return found


def predict_volume(
    predictor: Predictor,
    volume: VolumeInput,
    out: Path,
    on_slice: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the labels of a volume as NAME.nii.gz, with its shape and affine.

    Raises DataError for volumes that cannot be read or are of another form, and UnetexpError if
    the labels cannot be written.
    """
    assert predictor.spec.input is not None and predictor.spec.input.volumes is not None
    form = predictor.spec.input.volumes
    slices, size = _slices(volume, form)
    labels = np.empty((slices.shape[1], *size), np.uint8)
    for index in range(slices.shape[1]):
        labels[index] = _labels(predictor, np.ascontiguousarray(slices[:, index]), size)
        on_slice(index + 1, slices.shape[1])
    target = out / volume.name.with_name(volume.name.name + ENDING)
    scratch = target.with_name(f".unetexp-{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_labels(scratch, as_volume(labels, form.axis), volume.path)
        scratch.replace(target)
    except OSError as error:
        raise UnetexpError(f"{out}: the results cannot be written: {error}.") from None
    finally:
        scratch.unlink(missing_ok=True)


def _slices(volume: VolumeInput, form: VolumeForm) -> tuple[RawImage, tuple[int, int]]:
    """(C, S, H, W) as the model takes them, and the size of a slice as stored."""
    channels = len(form.windows)
    headers = [read_header(path, channels) for path in volume.files]
    if sum(header.channels for header in headers) != channels:
        raise DataError(
            f"{volume.path}: this volume has {sum(h.channels for h in headers)} channels, and the "
            f"model takes {channels}. Give {channels} files, a folder of them for each case, or "
            "CASE_0000.nii.gz, CASE_0001.nii.gz and so on, in the order of training."
        )
    if len({header.shape for header in headers}) > 1:
        raise DataError(f"{volume.path}: the files of this volume differ in their shapes.")
    size = in_plane(headers[0].shape, form.axis)
    wanted = size
    if form.spacing_mm is not None:
        wanted = resampled_size(size, in_plane(headers[0].spacing_mm, form.axis), form.spacing_mm)
    pixels = []
    every = itertools.chain.from_iterable(map(read_volume, volume.files))
    for window, voxels in zip(form.windows, every, strict=True):
        scale = Scale(window, form.bits)
        slices = as_slices(scale.unit(voxels), form.axis)
        pixels.append(scale.pixels(resampled_images(slices, wanted)))
    return np.stack(pixels), size


def _labels(predictor: Predictor, image: RawImage, size: tuple[int, int]) -> Labels:
    """The labels (H, W) of a slice, at its size as stored."""
    tensor = torch.from_numpy(image)
    if image.shape[1:] == size:
        return np.asarray(predictor.labels(tensor).numpy())
    logits = functional.interpolate(predictor.logits(tensor)[None], size, mode="bilinear")
    return np.asarray(predictor.labels_of(logits[0]).numpy())


def _in_folder(root: Path, folder: Path, channels: int) -> Iterator[VolumeInput]:
    """The volumes directly in a folder."""
    files = {
        stem: path
        for stem, path in by_stem(folder).items()
        if not (is_label_word(stem) or LABEL_END.fullmatch(stem))
    }
    inside = folder.relative_to(root)
    numbered = {stem: match[1] for stem in files if (match := _CHANNEL.fullmatch(stem))}
    if files and len(numbered) == len(files):
        for case in dict.fromkeys(numbered.values()):
            members = [files[stem] for stem, name in numbered.items() if name == case]
            yield VolumeInput(tuple(members), inside / case)
    elif channels > 1 and len(files) == channels:
        yield VolumeInput(tuple(files.values()), Path(folder.resolve().name))
    else:
        for stem, path in files.items():
            yield VolumeInput((path,), inside / stem)


def _below(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
    for folder, _, names in os.walk(place):
        yield from (Path(folder, name) for name in names if name[0] != ".")


def _stem(path: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def _repeated(names: Sequence[Path]) -> Path:
    return next(name for name in names if names.count(name) > 1)
