"""Samples as they lie on disk, found but not opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unetexp.data.collection import Labels, RawImage
from unetexp.data.reading.image_decoding import StoredImage
from unetexp.data.reading.input_form import VolumeForm
from unetexp.data.reading.stored_mask import StoredMask


@dataclass(frozen=True)
class FileSample:
    """The files of one image and its mask."""

    name: str
    images: tuple[Path | None, ...]  # several are channels of one image; None: there is no file
    mask: Path
    part: str = ""  # what of the files is meant, such as a slice, in the source's own words
    group: str = ""  # samples of one group stay in one split; "": none but this one

    @property
    def image(self) -> Path:
        """The first image file there is."""
        return next(path for path in self.images if path is not None)

    @property
    def files(self) -> tuple[Path, ...]:
        """All files there are, the mask last."""
        return (*(path for path in self.images if path is not None), self.mask)


@dataclass(frozen=True)
class FileReader:
    """How files are decoded; `name` changes when the same file is decoded to other values."""

    name: str
    image: Callable[[FileSample], RawImage | StoredImage]  # (C, H, W)
    mask: Callable[[FileSample], Labels]  # (H, W)
    stored: Callable[[FileSample], StoredMask] | None = None
    """The mask before anything is made of it; None: `mask` gives the final classes' numbers."""
    image_max: int | None = None  # the 16-bit value that is 1.0; None: what the images hold says
    volumes: VolumeForm | None = None  # how slices are cut, where images are slices


@dataclass(frozen=True)
class Listing:
    """What a source found: samples whose split is given, and samples that are yet to be split."""

    root: Path  # files are identified by their place below it, and their content
    splits: Mapping[str, Sequence[FileSample]] = field(default_factory=dict)
    unsplit: Sequence[FileSample] = ()  # become train and val, and test where `splits` has none
    class_names: tuple[str, ...] | None = None  # None: the masks decide
    method: str = "folders"  # how the splits were made, for the record
    notes: tuple[str, ...] = ()  # what was understood and assumed
    class_colours: Mapping[int, int] = field(default_factory=dict)  # 0xrrggbb -> class, or VOID
    label_map: str | None = None  # of the stored numbers, as files beside the data say
    void: str = ""  # what it makes void, in words
    indexed: bool = False  # the set's form says that the indices of palettes are class numbers

    def samples(self) -> list[FileSample]:
        """All of them."""
        return [*self.unsplit, *(each for split in self.splits.values() for each in split)]
