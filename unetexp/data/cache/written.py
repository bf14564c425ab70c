"""What a decoded split holds, and the channels and pixel scale that a set gets from that.

C channels, H W image size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unetexp.data.collection import Pair, RawImage, ReadingResult
from unetexp.data.decoded.split_table import DEPTH_STEP, SplitTable
from unetexp.data.label_values.split_labels import SplitLabels
from unetexp.data.labels import VOID
from unetexp.data.reading.value_ranges import ROBUST_SHARE, robust_maximum
from unetexp.data.splits.fold_names import is_training
from unetexp.errors import DataError

_GREY_AND_RGB = {1, 3}


@dataclass
class Written:
    """What is recorded about a split while it is written; one entry per sample."""

    pairs: Sequence[Pair]
    shapes: list[tuple[int, int, int]] = field(default_factory=list)  # C, H, W as kept
    originals: list[tuple[int, int]] = field(default_factory=list)  # H, W
    bits: list[int] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)  # the largest pixel value
    deep_counts: npt.NDArray[np.int64] = field(  # how often each value occurs in 16-bit images
        default_factory=lambda: np.zeros(2**16, np.int64)
    )
    label_counts: list[npt.NDArray[np.int32]] = field(default_factory=list)  # (256,) each
    waiting_bytes: list[int] = field(default_factory=list)  # of the compressed stored masks
    original_bytes: list[int] = field(default_factory=list)  # of the compressed masks in classes
    kept_counts: npt.NDArray[np.int64] = field(  # (256,) classes at the working size
        default_factory=lambda: np.zeros(VOID + 1, np.int64)
    )

    def add(
        self,
        image: RawImage,
        original: tuple[int, int],
        counts: npt.NDArray[np.int32],
        waiting_bytes: int,
    ) -> None:
        """Record an image (C, H, W) as it is kept, and the stored values of its mask."""
        self.shapes.append((image.shape[0], image.shape[1], image.shape[2]))
        self.originals.append(original)
        self.bits.append(image.itemsize * 8)
        self.peaks.append(int(image.max()))
        if image.itemsize == 2:
            self.deep_counts += np.bincount(image.reshape(-1), minlength=2**16)
        self.label_counts.append(counts)
        self.waiting_bytes.append(waiting_bytes)

    def labels(self) -> SplitLabels:
        """The label counts in the form the checks take."""
        return SplitLabels(
            names=[pair.name for pair in self.pairs],
            mask_files=[pair.mask_file for pair in self.pairs],
            counts=np.stack(self.label_counts),
        )


@dataclass(frozen=True)
class Scale:
    """The depth of a set's images and the pixel value that means 1.0."""

    bits: int
    image_max: int
    clips: bool = False  # values above image_max are set to it
    notes: tuple[str, ...] = ()


def scale_of(written: Mapping[str, Written], result: ReadingResult) -> Scale:
    """The common depth and scale: of 16-bit images a robust maximum over the train split."""
    if max(max(split.bits) for split in written.values()) == 8:
        return Scale(8, 255)
    if result.image_max is not None:
        return Scale(16, result.image_max)
    train = [split for name, split in written.items() if is_training(name)]
    pairs = [each for split in train for each in zip(split.peaks, split.bits, strict=True)]
    shallow = max((peak * DEPTH_STEP for peak, bits in pairs if bits == 8), default=1)
    deep = max((peak for peak, bits in pairs if bits == 16), default=1)
    robust = max(shallow, robust_maximum(np.sum([each.deep_counts for each in train], axis=0)))
    largest = max(1, shallow, deep)
    if robust >= largest:
        return Scale(16, largest)
    above, pixels = _above(written, robust)
    return Scale(
        16,
        robust,
        clips=True,
        notes=(
            f"16-bit images: {robust} is read as 1.0, not the largest value of the train images, "
            f"{largest}: {ROBUST_SHARE:.1%} of their values do not exceed {robust}. {above} values "
            f"above it ({above / pixels:.4%}) are clipped. To set the scale: "
            f"--set 'data.value_range=[0, {largest}]'.",
        ),
    )


def _above(written: Mapping[str, Written], white: int) -> tuple[int, int]:
    """How many values of 16-bit images exceed `white`, and how many there are."""
    counts = sum(split.deep_counts for split in written.values())
    assert isinstance(counts, np.ndarray)
    return int(counts[white + 1 :].sum()), int(counts.sum())


def clip_file(path: Path, table: SplitTable, white: int) -> None:
    """Set the values above `white` in the 16-bit images of a split's file to it."""
    data = np.memmap(path, np.uint8, mode="r+")
    start = 0
    for size, bits in zip(table.image_sizes().tolist(), table.bits, strict=True):
        if bits == 16:
            image = data[start : start + size].view(np.uint16)
            np.minimum(image, np.uint16(white), out=image)
        start += size
    data.flush()


def common_channels(where: str, written: Mapping[str, Written]) -> int:
    """C of all images, grey counting as RGB beside RGB. DataError for other mixtures."""
    examples: dict[int, str] = {}
    for name, split in written.items():
        for pair, shape in zip(split.pairs, split.shapes, strict=True):
            examples.setdefault(shape[0], f"{pair.name} ({name})")
    if len(examples) > 1 and not examples.keys() <= _GREY_AND_RGB:
        (first, a), (second, b) = sorted(examples.items())[:2]
        raise DataError(
            f"{where}: {a} has {first} channels and {b} {second}. All images must have the same "
            "channels (only grey and RGB may be mixed): choose bands that all have, such as "
            f"--set 'data.bands={list(range(min(first, second)))}'."
        )
    return max(examples)
