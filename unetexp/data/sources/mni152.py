"""The embedded brain-MRI slices: nilearn's MNI152 T1 template with its tissue maps.

The template is the average of 152 adult brains, 1 mm voxels (Fonov et al. 2011,
doi:10.1016/j.neuroimage.2010.07.033). It is one brain, so neighbouring slices are near copies of
each other: the splits are contiguous blocks of axial slices, with gaps between them.

X Y Z voxels of the volume, Z axial slices from the neck up.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from unetexp.data.collection import Collection, Labels, Pair, Progress
from unetexp.data.sources.resized_source import ResizedSource

CLASSES = ("background", "csf_other", "grey_matter", "white_matter")
GAP_SLICES = 3
_HELD_OUT_SLICES = 20  # each for val and test
_MIN_BRAIN_FRACTION = 0.05
_VERSION = 1  # of the slices that this module makes

Volume = npt.NDArray[np.float32]


class Mni152(ResizedSource):
    """Axial slices of one average brain, in four classes: needs no network and no files."""

    first_fields: ClassVar[tuple[str, ...]] = ("kind", "downsample")

    kind: Literal["mni152"] = "mni152"
    downsample: int = Field(2, ge=1, le=4, description="millimetres per pixel, by averaging")

    def collect(self, on_progress: Progress | None = None) -> Collection:
        """The slices; the template is read only if they are not in the cache."""
        origin = f"mni152 v{_VERSION} nilearn {importlib.metadata.version('nilearn')}"
        settings = f"{origin} downsample {self.downsample}"
        return Collection(
            where="mni152",
            fingerprint=hashlib.sha256(settings.encode()).hexdigest(),
            pairs=self._pairs,
            class_names=CLASSES,
            split_record={
                "method": "contiguous blocks of axial slices",
                "gap_slices": GAP_SLICES,
            },
        )

    def spacings_mm(self, names: Sequence[str]) -> Mapping[str, tuple[float, float]]:
        """Square pixels of `downsample` voxels of 1 mm."""
        return dict.fromkeys(names, (float(self.downsample), float(self.downsample)))

    def _pairs(self) -> dict[str, list[Pair]]:
        image, labels, heights = _slices(self.downsample)
        train_end = len(heights) - 2 * (_HELD_OUT_SLICES + GAP_SLICES)
        val_start = train_end + GAP_SLICES
        test_start = val_start + _HELD_OUT_SLICES + GAP_SLICES
        blocks = {
            "train": range(train_end),
            "val": range(val_start, val_start + _HELD_OUT_SLICES),
            "test": range(test_start, test_start + _HELD_OUT_SLICES),
        }
        return {
            name: [_pair(image, labels, heights, index) for index in block]
            for name, block in blocks.items()
        }


def _pair(image: Labels, labels: Labels, heights: npt.NDArray[np.int64], index: int) -> Pair:
    name = f"axial_{heights[index]:03d}"
    return Pair(name, f"mni152 slice {name}", partial(_cut, image, labels, index))


def _cut(image: Labels, labels: Labels, index: int) -> tuple[Labels, Labels]:
    return image[np.newaxis, index], labels[index]


def _slices(downsample: int) -> tuple[Labels, Labels, npt.NDArray[np.int64]]:
    """Images and labels (Z, H, W) of the slices with enough brain, forehead on top, and z."""
    template, grey, white = _volumes()
    brain = (template > 0).astype(np.float32)
    pooled = partial(_pooled, downsample=downsample)
    head, grey, white = pooled(brain), pooled(grey * brain), pooled(white * brain)
    other = np.clip(head - grey - white, 0, None)
    labels = np.stack([1 - head, other, grey, white]).argmax(axis=0).astype(np.uint8)
    image = np.rint(pooled(template) * 255).astype(np.uint8)
    kept = np.flatnonzero(brain.mean(axis=(0, 1)) >= _MIN_BRAIN_FRACTION)
    return _upright(image)[kept], _upright(labels)[kept], kept


def _pooled(volume: Volume, downsample: int) -> Volume:
    """Mean over downsample x downsample voxels of each axial slice: (X, Y, Z) -> (X', Y', Z)."""
    x, y = (size // downsample for size in volume.shape[:2])
    inside = volume[: x * downsample, : y * downsample]
    pooled: Volume = inside.reshape(x, downsample, y, downsample, -1).mean(axis=(1, 3))
    return pooled


def _upright(volume: Labels) -> Labels:
    """(X, Y, Z) -> (Z, Y reversed, X): the front of the head is the first row."""
    return np.ascontiguousarray(volume.transpose(2, 1, 0)[:, ::-1])


def _volumes() -> tuple[Volume, Volume, Volume]:
    """T1 intensity, grey-matter and white-matter probability, (X, Y, Z) each, in 0..1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nilearn import datasets  # takes two seconds, and is needed only the first time

        maps = (
            datasets.load_mni152_template(resolution=1),
            datasets.load_mni152_gm_template(resolution=1),
            datasets.load_mni152_wm_template(resolution=1),
        )
        template, grey, white = (np.asarray(volume.dataobj, np.float32) for volume in maps)
    return template, grey, white
