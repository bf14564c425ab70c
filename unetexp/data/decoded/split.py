"""The decoded samples of one split: memory-mapped, picklable, cheap to crop.

A split is kept in two flat files of a cache folder, `<split>.images` (each image C H W, at its own
size, depth and channels) and `<split>.masks` (each H W, one byte per pixel), in the order of its
table. Depth and channels are made equal for all images when they are read. Where images are scaled
to a working size, both are of that size, and `<split>.originals` holds the masks at their own
size, compressed (zlib). A set that has no room in the cache has no files: its samples are decoded
each time (`Decoder`).

C channels, K classes, H W image size, h w window size in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from unetexp.data.collection import Labels, RawImage
from unetexp.data.decoded.class_places import ClassPlaces
from unetexp.data.decoded.pixel_files import PixelFile, copy_into, overlap, packed_mask, starts
from unetexp.data.decoded.sample import Sample
from unetexp.data.decoded.split_table import DEPTH_STEP, SplitTable
from unetexp.data.labels import VOID


class Decoder(Protocol):
    """Samples that are decoded from their files each time; may be called from any thread."""

    def decoded(self, index: int) -> tuple[RawImage, Labels, Labels]:
        """Image (C, H, W) and classes at the working size, and classes at the image's own."""

    def classes(self, index: int) -> Labels:
        """The classes (H, W) at the working size; the image is not decoded for them."""

    def tree(self) -> dict[str, Any]:
        """All that it takes, JSON-safe."""


DecoderOf: TypeAlias = Callable[[Mapping[str, Any]], Decoder]


class Split:
    """The samples of one split: `len(split)`, `split[i]`, `split.window(...)`.

    Holds no pixels itself. Pickles as a path and a table; each process maps the files on first
    use.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        table: SplitTable,
        channels: int,
        bits: int,
        decoder: Decoder | None = None,
    ) -> None:
        """Every sample is returned with `channels` and `bits`.

        `decoder` makes the samples where `folder` does not hold them.
        """
        self.names = table.names
        self.shapes = tuple(zip(table.heights, table.widths, strict=True))
        originals = zip(table.original_heights, table.original_widths, strict=True)
        self.original_shapes = tuple(originals) or self.shapes
        self.class_pixels = np.array(table.class_pixels, np.int64)  # (K,)
        self.void_pixels = table.void_pixels
        self.groups = table.groups
        self._folder, self._name, self._table = folder, name, table
        self.channels, self._bits = channels, bits
        self._image_starts = starts(self._table.image_sizes())
        self._mask_starts = starts(self._table.mask_sizes())
        self._original_starts = starts(np.array(table.original_bytes, np.int64))
        self._images = PixelFile(folder / f"{name}.images")
        self._masks = PixelFile(folder / f"{name}.masks")
        self._decoder = decoder

    def __reduce__(self) -> tuple[Any, ...]:
        place = (self._folder, self._name, self._table, self.channels, self._bits, self._decoder)
        return Split, place

    def tree(self) -> dict[str, Any]:
        """Where the samples are, as JSON-safe values; see `Dataset.of_tree`."""
        return {
            "folder": str(self._folder),
            "name": self._name,
            "table": self._table.model_dump(),
            "channels": self.channels,
            "bits": self._bits,
            "decoder": self._decoder.tree() if self._decoder else None,
        }

    @staticmethod
    def of_tree(tree: Mapping[str, Any], decoder_of: DecoderOf | None = None) -> Split:
        """The split that a `tree` of one split tells of; see `split_of_tree`."""
        table = SplitTable.model_validate(tree["table"])
        decoder = None
        if tree["decoder"] is not None:
            assert decoder_of is not None, "these samples are not in the cache"
            decoder = decoder_of(tree["decoder"])
        place = Path(tree["folder"])
        return Split(place, tree["name"], table, tree["channels"], tree["bits"], decoder)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        index = self._checked(index)
        image, mask = self.window(index, 0, 0, *self.shapes[index])
        self._images.let_go()
        original = self.original_mask(index) if self._table.original_heights else None
        return Sample(self.names[index], image, mask, original)

    def original_mask(self, index: int) -> Tensor:
        """The mask (H, W) at the image's own size."""
        index = self._checked(index)
        if not self._table.original_heights:
            return torch.from_numpy(np.array(self.stored(index)[1]))
        if self._decoder is not None:
            return torch.from_numpy(self._decoder.decoded(index)[2])
        part = self._original_starts[index : index + 2].tolist()
        pixels = packed_mask(self._folder / f"{self._name}.originals", *part)
        return torch.frombuffer(pixels, dtype=torch.uint8).view(self.original_shapes[index])

    def image_bytes(self, index: int) -> int:
        """Bytes of an image with its own channels, at the depth of the split."""
        first, last = self._image_starts[index : index + 2].tolist()
        return int(last - first) * self._bits // self._table.bits[index]

    def window(
        self,
        index: int,
        top: int,
        left: int,
        height: int,
        width: int,
        into: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Image (C, h, w) and mask (h, w) of a window, which may reach outside the image.

        `top` and `left` may be negative. Outside, the image is 0 and the mask void. Both are
        written `into` the tensors given, or into new ones.
        """
        image, mask = into or (
            torch.empty((self.channels, height, width), dtype=self.pixel_type),
            torch.empty((height, width), dtype=torch.uint8),
        )
        stored_image, stored_mask = self.stored(index)
        rows, target_rows = overlap(top, height, stored_mask.shape[0])
        columns, target_columns = overlap(left, width, stored_mask.shape[1])
        inside = (target_rows, target_columns)
        copy_into(image.numpy(), inside, stored_image[:, rows, columns], 0)
        if self._bits > self._table.bits[self._checked(index)]:
            pixels = image.numpy()[:, target_rows, target_columns]
            np.multiply(pixels, np.uint16(DEPTH_STEP), out=pixels)
        copy_into(mask.numpy(), inside, stored_mask[rows, columns], VOID)
        return image, mask

    @property
    def pixel_type(self) -> torch.dtype:
        """uint8 or uint16, of every sample's image."""
        return torch.uint8 if self._bits == 8 else torch.uint16

    def _checked(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self._name} has {len(self)} samples, index {index} is out of range")
        return index % len(self)

    def stored(self, index: int) -> tuple[RawImage, Labels]:
        """The image (C, H, W) as it is kept and the mask (H, W), as views of the mapped files."""
        index = self._checked(index)
        if self._decoder is not None:
            return self._decoder.decoded(index)[:2]
        height, width = self.shapes[index]
        image = self._images.between(*self._image_starts[index : index + 2].tolist())
        mask = self._masks.between(*self._mask_starts[index : index + 2].tolist())
        pixels: RawImage = image if self._table.bits[index] == 8 else image.view(np.uint16)
        shape = (self._table.channels[index], height, width)
        return pixels.reshape(shape), mask.reshape(height, width)

    @cached_property
    def class_places(self) -> ClassPlaces:
        """Where each class is in each image, except the split's most frequent one."""
        return self.places_beside(self._commonest())

    def places_beside(self, common: int) -> ClassPlaces:
        """Where each class but `common` is: counted at first use, then read from the cache."""
        which = "" if common == self._commonest() else f"-beside-{common}"
        path = self._folder / f"{self._name}.class-places{which}.npz"
        found = ClassPlaces.load(path)
        if found is None or found.counts.shape != (len(self), len(self.class_pixels)):
            found = ClassPlaces.count(self._classes, len(self), len(self.class_pixels), common)
            found.save(path)
        return found

    def _commonest(self) -> int:
        return int(np.argmax(self.class_pixels))

    def _classes(self, index: int) -> Labels:
        return self.stored(index)[1] if self._decoder is None else self._decoder.classes(index)
