"""Decoded images and masks for trials: memory-mapped, picklable, cheap to crop.

A split is kept in two flat files of a cache folder, `<split>.images` (each image C H W, at its own
size, depth and channels) and `<split>.masks` (each H W, one byte per pixel), in the order of its
table. Depth and channels are made equal for all images when they are read. Where images are scaled
to a working size, both are of that size, and `<split>.originals` holds the masks at their own
size, compressed (zlib). A set that has no room in the cache has no files: its samples are decoded
each time (`Decoder`).

C channels, K classes, H W image size, h w window size in pixels.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from unetexp.data.class_places import ClassPlaces
from unetexp.data.collection import Labels, RawImage
from unetexp.data.labels import VOID
from unetexp.data.pixel_files import PixelFile, copy_into, overlap, packed_mask, starts
from unetexp.data.reading.input_form import InputForm
from unetexp.data.resizing import Resize, plain, resize_value
from unetexp.data.splits.fold_names import fold_name
from unetexp.errors import DataError

DecoderOf: TypeAlias = "Callable[[Mapping[str, Any]], Decoder]"
DEPTH_STEP = 257  # 8 to 16 bit: 255 * 257 = 65535


@dataclass(frozen=True)
class Sample:
    """One image and its mask, at the size that models work with."""

    name: str
    image: Tensor  # (C, H, W) uint8 or uint16
    mask: Tensor  # (H, W) uint8, 255 void
    original: Tensor | None = None  # the mask at the image's own size, where that is another

    @property
    def truth(self) -> Tensor:
        """The mask at the image's own size."""
        return self.mask if self.original is None else self.original


def original_shapes(samples: Samples) -> tuple[tuple[int, int], ...]:
    """(H, W) of each image as it was before it was scaled to the working size."""
    shapes: tuple[tuple[int, int], ...] = getattr(samples, "original_shapes", samples.shapes)
    return shapes


class Decoder(Protocol):
    """Samples that are decoded from their files each time; may be called from any thread."""

    def decoded(self, index: int) -> tuple[RawImage, Labels, Labels]:
        """Image (C, H, W) and classes at the working size, and classes at the image's own."""

    def tree(self) -> dict[str, Any]:
        """All that it takes, JSON-safe."""


class Samples(Protocol):
    """A sequence of images with masks: a split, or a combination of splits."""

    @property
    def names(self) -> tuple[str, ...]:
        """One per sample."""

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(H, W) of each sample."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class SplitTable(BaseModel):
    """The place of each sample of a split, and its content; one entry per sample."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...]
    heights: tuple[int, ...]
    widths: tuple[int, ...]
    channels: tuple[int, ...]  # as stored
    bits: tuple[int, ...]  # as stored: 8 or 16
    class_pixels: tuple[int, ...]  # K counts over the split
    void_pixels: int
    groups: tuple[str, ...] = ()  # empty where no sample has one
    # where images are scaled to a working size: their own, and the bytes of the compressed masks
    original_heights: tuple[int, ...] = ()
    original_widths: tuple[int, ...] = ()
    original_bytes: tuple[int, ...] = ()

    def mask_sizes(self) -> npt.NDArray[np.int64]:
        """Bytes of each mask, which are its pixels."""
        return np.array(self.heights, np.int64) * np.array(self.widths, np.int64)

    def image_sizes(self) -> npt.NDArray[np.int64]:
        """Bytes of each image."""
        channels, bits = np.array(self.channels, np.int64), np.array(self.bits, np.int64)
        return self.mask_sizes() * channels * (bits // 8)


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
        """The split that a `tree` tells of; see `Dataset.of_tree`."""
        if "parts" in tree:
            return JoinedSplit([Split.of_tree(part, decoder_of) for part in tree["parts"]])
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
        """Where each class is in each image: counted at first use, then read from the cache."""
        path = self._folder / f"{self._name}.class-places.npz"
        found = ClassPlaces.load(path)
        if found is None or found.counts.shape != (len(self), len(self.class_pixels)):
            found = ClassPlaces.count(self._stored_mask, len(self), self.class_pixels)
            found.save(path)
        return found

    def _stored_mask(self, index: int) -> Labels:
        return self.stored(index)[1]


class JoinedSplit(Split):
    """Several splits in one sequence, in their order: what k-1 of k folds make."""

    def __init__(self, parts: Sequence[Split]) -> None:
        self.parts = tuple(parts)
        self.names = tuple(chain.from_iterable(part.names for part in parts))
        self.shapes = tuple(chain.from_iterable(part.shapes for part in parts))
        self.groups = tuple(chain.from_iterable(part.groups for part in parts))
        self.original_shapes = tuple(chain.from_iterable(part.original_shapes for part in parts))
        self.class_pixels = np.sum([part.class_pixels for part in parts], axis=0)
        self.void_pixels = sum(part.void_pixels for part in parts)
        self.channels, self._bits = parts[0].channels, parts[0]._bits
        self._name = " + ".join(part._name for part in parts)
        self._ends = list(accumulate(map(len, parts)))

    def __reduce__(self) -> tuple[Any, ...]:
        return JoinedSplit, (self.parts,)

    def tree(self) -> dict[str, Any]:
        """As of a split."""
        return {"parts": [part.tree() for part in self.parts]}

    def __getitem__(self, index: int) -> Sample:
        part, index = self._place_of(index)
        return part[index]

    def original_mask(self, index: int) -> Tensor:
        """As of a split."""
        part, index = self._place_of(index)
        return part.original_mask(index)

    def image_bytes(self, index: int) -> int:
        """As of a split."""
        part, index = self._place_of(index)
        return part.image_bytes(index)

    def window(
        self,
        index: int,
        top: int,
        left: int,
        height: int,
        width: int,
        into: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As of a split."""
        part, index = self._place_of(index)
        return part.window(index, top, left, height, width, into)

    def stored(self, index: int) -> tuple[RawImage, Labels]:
        """As of a split."""
        part, index = self._place_of(index)
        return part.stored(index)

    @cached_property
    def class_places(self) -> ClassPlaces:
        """As of a split."""
        if len({int(np.argmax(part.class_pixels)) for part in self.parts}) == 1:
            return ClassPlaces.joined([part.class_places for part in self.parts])
        return ClassPlaces.count(self._stored_mask, len(self), self.class_pixels)

    def _place_of(self, index: int) -> tuple[Split, int]:
        index = self._checked(index)
        part = self.parts[number := bisect_right(self._ends, index)]
        return part, index - self._ends[number] + len(part)


@dataclass(frozen=True)
class Dataset:
    """Images and masks in splits `train`, `val` and, where there is one, `test`.

    Where all but test is divided into `folds`, train and val are both all of it: each image is
    trained on by all models but one, and validated by that one. `unetexp.data.folded.rounds` has
    the data of each model.
    """

    fingerprint: str
    class_names: tuple[str, ...]
    channels: int  # of every image as it is returned
    image_max: int  # the pixel value that means 1.0
    notes: tuple[str, ...]  # what to tell the user about the data
    splits: Mapping[str, Split]
    split_record: Mapping[str, Any] = field(default_factory=dict)  # how the splits were made
    problems: tuple[str, ...] = ()  # why no model should be trained on it
    resize: Resize | None = None  # how the images were scaled to their working size
    form: InputForm | None = None  # how further files are read in the same way
    folds: tuple[Split, ...] = ()

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    def __getitem__(self, name: str) -> Split:
        if name not in self.splits:
            raise DataError(f"The data has no {name!r} split. It has: {', '.join(self.splits)}.")
        return self.splits[name]

    def tree(self) -> dict[str, Any]:
        """All of it but the pixels, as JSON-safe values for another process on this machine."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        form = self.form.tree() if self.form else None
        splits = {name: split.tree() for name, split in self.splits.items()}
        folds = [fold.tree() for fold in self.folds]
        made = {"form": form, "resize": plain(self.resize), "splits": splits, "folds": folds}
        return own | made

    @classmethod
    def of_tree(cls, tree: Mapping[str, Any], decoder_of: DecoderOf | None = None) -> Dataset:
        """The data set that a `tree` tells of.

        `decoder_of` makes a `Decoder` again from its tree: `unetexp.data.sources.dataset_of_tree`
        has it.
        """
        splits = {n: Split.of_tree(split, decoder_of) for n, split in tree["splits"].items()}
        lists = {name: tuple(tree[name]) for name in ("class_names", "notes", "problems")}
        form = InputForm.model_validate(tree["form"]) if tree["form"] else None
        folds = tuple(Split.of_tree(fold, decoder_of) for fold in tree["folds"])
        resize = resize_value(tree["resize"])
        made = {"form": form, "resize": resize, "splits": splits, "folds": folds}
        return cls(**{**tree, **lists, **made})

    def summary(self) -> dict[str, Any]:
        """What a run records about its data, as JSON-safe values."""
        return {
            "fingerprint": self.fingerprint,
            "classes": list(self.class_names),
            "channels": self.channels,
            "image_max": self.image_max,
            **({"input": self.form.changes()} if self.form and self.form.changes() else {}),
            "split": dict(self.split_record),
            **({"resize": plain(self.resize)} if self.resize else {}),
            "splits": {name: self._split_summary(split) for name, split in self.splits.items()},
            **({"folds": [self._split_summary(fold) for fold in self.folds]} if self.folds else {}),
            "notes": list(self.notes),
        }

    def members(self) -> dict[str, dict[str, Any]]:
        """The names of the images of each split or fold, and their groups where they have any."""
        splits = dict(self.splits)
        if self.folds:
            folds = {fold_name(index): fold for index, fold in enumerate(self.folds)}
            splits = folds | {k: v for k, v in splits.items() if k not in ("train", "val")}
        return {
            name: {
                "images": list(split.names),
                **({"groups": list(split.groups)} if split.groups else {}),
            }
            for name, split in splits.items()
        }

    def _split_summary(self, split: Split) -> dict[str, Any]:
        heights, widths = zip(*split.shapes, strict=True)
        pixels = int(split.class_pixels.sum()) + split.void_pixels
        fractions = zip(self.class_names, (split.class_pixels / pixels).tolist(), strict=True)
        return {
            "images": len(split),
            "height_px": [min(heights), max(heights)],
            "width_px": [min(widths), max(widths)],
            "class_fractions": dict(fractions),
            "void_fraction": split.void_pixels / pixels,
            **_original_summary(split),
            "names_sha256": hashlib.sha256("\n".join(split.names).encode()).hexdigest(),
        }


def _original_summary(split: Split) -> dict[str, Any]:
    if split.original_shapes == split.shapes:
        return {}
    heights, widths = zip(*split.original_shapes, strict=True)
    return {
        "original_height_px": [min(heights), max(heights)],
        "original_width_px": [min(widths), max(widths)],
    }
