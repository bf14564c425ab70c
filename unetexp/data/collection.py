"""The output of a source: named pairs of image and mask, not decoded yet.

C channels, H W image size in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from unetexp.data.reading.input_form import InputForm
    from unetexp.data.resizing import Resize

RawImage: TypeAlias = npt.NDArray[np.uint8 | np.uint16]
Labels: TypeAlias = npt.NDArray[np.uint8]
Progress: TypeAlias = Callable[[str, int, int], None]  # (what is done, done, total)

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Pair:
    """One image and its mask. `load` may be called from any thread."""

    name: str
    mask_file: str  # the mask's name in messages
    load: Callable[[], tuple[RawImage, Labels]]  # (C, H, W), (H, W)
    group: str = ""  # the patient, video or site that it is of, where that is known
    load_mask: Callable[[], Labels] | None = None  # the mask alone; None: only `load` has it


@dataclass(frozen=True)
class ReadingResult:
    """What is known about the images once all were loaded."""

    notes: tuple[str, ...] = ()
    image_max: int | None = None  # the pixel value that means 1.0; None: the largest, robustly
    form: InputForm | None = None  # how further files are read in the same way
    anew: bool = False  # earlier versions decoded such files to other pixels


@dataclass(frozen=True)
class Collection:
    """Everything a source knows before it decodes.

    `fingerprint` changes with anything that changes a decoded pixel, a class or a split. `pairs`
    is called only when the cache does not hold that fingerprint. `class_names` is None if the
    masks decide.
    """

    where: str  # the set's name in messages
    fingerprint: str
    pairs: Callable[[], Mapping[str, Sequence[Pair]]]
    class_names: tuple[str, ...] | None
    split_record: Mapping[str, Any]  # how the splits were made; JSON-safe
    notes: tuple[str, ...] = field(default=())
    resize: Resize | None = None  # to the working size, in the cache
    digests: Mapping[Path, str] = field(default_factory=dict)  # of the files, by content
    label_map: str | None = None  # as in label_map.py; None: the masks hold the classes
    ignore: str | None = None  # stored values that are void, as in label_map.py
    stored: Sequence[tuple[str, int]] = ()  # stored values as in label maps, and their codes
    wide: bool = False  # the masks are stored as whole numbers of more than 8 bits
    void: str = ""  # what is void in words, where no setting says it
    loaded: Callable[[], ReadingResult] = ReadingResult  # asked after all pairs were loaded
