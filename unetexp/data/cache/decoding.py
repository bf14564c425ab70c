"""A sample from its files: decoded, checked and scaled to the working size.

The same functions serve the cache and a set that has no room there, so that both have the same
pixels. C channels, H W image size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from unetexp.data.collection import Labels, Pair, RawImage
from unetexp.data.files.file_sample import FileReader, FileSample
from unetexp.data.resizing import (
    Resize,
    plain,
    resize_value,
    resized_image,
    resized_mask,
    working_size,
)
from unetexp.errors import DataError


class ReadsFiles(Protocol):
    """A source of files."""

    def reader(self) -> FileReader:
        """How they are decoded."""

    def tree(self) -> dict[str, Any]:
        """Its settings."""


def loaded(pair: Pair) -> tuple[RawImage, Labels]:
    """The image and the stored values of its mask; DataError unless their sizes agree."""
    image, mask = pair.load()
    if image.shape[1:] != mask.shape:
        turned = image.shape[:0:-1] == mask.shape
        hint = "One of them is rotated: check its EXIF tag. " if turned else ""
        raise DataError(
            f"{pair.mask_file}: the mask is {mask.shape[0]} x {mask.shape[1]} pixels (height x "
            f"width), its image {image.shape[1]} x {image.shape[2]}. {hint}"
            "Make the mask as large as the image."
        )
    return image, mask


def at_working_size(image: RawImage, resize: Resize | None) -> RawImage:
    """The image (C, H, W) scaled as `resize` says."""
    return resized_image(image, working_size(resize, image.shape[1], image.shape[2]))


def classes_at(
    stored: Labels, table: npt.NDArray[np.uint8], resize: Resize | None
) -> tuple[Labels, Labels]:
    """Classes of stored values (H, W) by `table` (256,): at the working size, and at their own."""
    classes: Labels = table[stored]
    return resized_mask(classes, working_size(resize, *classes.shape)), classes


@dataclass(frozen=True)
class FileDecoder:
    """The samples of a split, decoded from their files each time."""

    source: ReadsFiles
    samples: Sequence[FileSample]
    resize: Resize | None
    table: tuple[int, ...]  # (256,) the class of each stored value

    def image(self, index: int) -> RawImage:
        """(C, H, W), at the working size."""
        return at_working_size(self.source.reader().image(self.samples[index]), self.resize)

    def masks(self, index: int) -> tuple[Labels, Labels]:
        """The classes at the working size and at the image's own."""
        stored = self.source.reader().mask(self.samples[index])
        return classes_at(stored, np.array(self.table, np.uint8), self.resize)

    def tree(self) -> dict[str, Any]:
        """All that it takes, JSON-safe."""
        return {
            "source": self.source.tree(),
            "samples": [_sample_tree(sample) for sample in self.samples],
            "resize": plain(self.resize),
            "table": list(self.table),
        }

    @classmethod
    def of_tree(cls, source: ReadsFiles, tree: Mapping[str, Any]) -> FileDecoder:
        """The decoder that a `tree` tells of."""
        samples = [_sample_of(each) for each in tree["samples"]]
        return cls(source, samples, resize_value(tree["resize"]), tuple(tree["table"]))


def _sample_tree(sample: FileSample) -> dict[str, Any]:
    images = [str(path) if path else None for path in sample.images]
    return {"name": sample.name, "images": images, "mask": str(sample.mask), "part": sample.part}


def _sample_of(tree: Mapping[str, Any]) -> FileSample:
    images = tuple(Path(path) if path else None for path in tree["images"])
    return FileSample(tree["name"], images, Path(tree["mask"]), tree["part"])
