"""From pairs of files to the decoded form in the cache.

C channels, H W image size.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from unetexp.data.cache.store import FORMAT, Index, open_cached
from unetexp.data.collection import Collection, Labels, Pair, Progress, RawImage
from unetexp.data.dataset import DEPTH_STEP, Dataset, SplitTable
from unetexp.data.files.file_hashing import mapped_in_threads
from unetexp.data.label_values.label_checks import Meaning, interpret
from unetexp.data.label_values.split_labels import SplitLabels
from unetexp.data.labels import VOID
from unetexp.errors import DataError

_CHUNK = 2**24


@dataclass
class _Written:
    """What is recorded about a split while it is written; one entry per sample."""

    pairs: Sequence[Pair]
    shapes: list[tuple[int, int, int]] = field(default_factory=list)  # C, H, W
    bits: list[int] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)  # the largest pixel value
    label_counts: list[npt.NDArray[np.int32]] = field(default_factory=list)  # (256,) each

    def labels(self) -> SplitLabels:
        """The label counts in the form the checks take."""
        return SplitLabels(
            names=[pair.name for pair in self.pairs],
            mask_files=[pair.mask_file for pair in self.pairs],
            counts=np.stack(self.label_counts),
        )


def open_collection(
    collection: Collection, on_progress: Progress | None = None, *, to_train: bool = True
) -> Dataset:
    """The decoded data set, from the cache or built into it. Raises DataError.

    `to_train`: also for what only training requires, such as every class in val.
    """

    def build(scratch: Path) -> Index:
        index = _build(collection, scratch, on_progress)
        if to_train:  # before it is put in place: nobody needs the files
            _refuse(collection, index.problems)
        return index

    dataset = open_cached(collection.fingerprint, build)
    if to_train:
        _refuse(collection, dataset.problems)
    # what the source says is about these files here, of which the cache may hold a copy's content
    return replace(dataset, notes=tuple(dict.fromkeys((*collection.notes, *dataset.notes))))


def _refuse(collection: Collection, problems: Sequence[str]) -> None:
    if problems:
        raise DataError("\n".join(f"{collection.where}: {problem}" for problem in problems))


def _build(collection: Collection, scratch: Path, on_progress: Progress | None) -> Index:
    splits = collection.pairs()
    total, done = sum(len(pairs) for pairs in splits.values()), 0
    written: dict[str, _Written] = {}
    with warnings.catch_warnings():  # oversized images get an error of ours
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for name, pairs in splits.items():
            written[name] = _write(name, pairs, scratch, (done, total), on_progress)
            done += len(pairs)
    labels = {name: split.labels() for name, split in written.items()}
    meaning = interpret(
        labels,
        collection.class_names,
        collection.where,
        collection.label_map,
        str(collection.split_record["method"]),
        collection.ignore,
        lambda name, index: _mask_at(scratch / f"{name}.masks", written[name], index),
    )
    if not meaning.as_stored:
        for name in splits:
            _relabel(scratch / f"{name}.masks", meaning.table)
    deepest = max(max(w.bits) for w in written.values())
    return Index(
        format=FORMAT,
        fingerprint=collection.fingerprint,
        class_names=meaning.class_names,
        channels=max(shape[0] for w in written.values() for shape in w.shapes),
        bits=deepest,
        image_max=255 if deepest == 8 else _image_max(written["train"]),
        notes=meaning.notes,
        problems=meaning.problems,
        split_record=dict(collection.split_record),
        splits={name: _table(split, meaning) for name, split in written.items()},
    )


def _write(
    name: str,
    pairs: Sequence[Pair],
    scratch: Path,
    progress: tuple[int, int],
    on_progress: Progress | None,
) -> _Written:
    """Write one split's two files. `progress` is (pairs done before this split, total pairs)."""
    written = _Written(pairs)
    before, total = progress
    with (
        (scratch / f"{name}.images").open("wb") as images,
        (scratch / f"{name}.masks").open("wb") as masks,
    ):
        for done, (image, mask) in enumerate(mapped_in_threads(_load, pairs), before + 1):
            images.write(image.tobytes())
            masks.write(mask.tobytes())
            written.shapes.append(image.shape)
            written.bits.append(image.itemsize * 8)
            written.peaks.append(int(image.max()))
            counts = np.bincount(mask.reshape(-1), minlength=VOID + 1)
            written.label_counts.append(counts.astype(np.int32))
            if on_progress:
                on_progress("Decoding images", done, total)
    return written


def _load(pair: Pair) -> tuple[RawImage, Labels]:
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


def _image_max(train: _Written) -> int:
    """The largest value in the train split, as 16 bits: what counts as 1.0."""
    peaks = zip(train.peaks, train.bits, strict=True)
    return max(1, *(peak * (DEPTH_STEP if bits == 8 else 1) for peak, bits in peaks))


def _mask_at(path: Path, written: _Written, index: int) -> Labels:
    """The mask (H, W) of a sample, as it has been written."""
    sizes = [shape[1] * shape[2] for shape in written.shapes]
    stored = np.memmap(path, np.uint8, mode="r")
    start = sum(sizes[:index])
    return stored[start : start + sizes[index]].reshape(written.shapes[index][1:])


def _relabel(path: Path, table: npt.NDArray[np.int16]) -> None:
    """Replace each stored value by its class; all values that occur have one."""
    labels = np.memmap(path, np.uint8, mode="r+")
    classes = table.astype(np.uint8)
    for start in range(0, len(labels), _CHUNK):
        labels[start : start + _CHUNK] = classes[labels[start : start + _CHUNK]]
    labels.flush()


def _table(written: _Written, meaning: Meaning) -> SplitTable:
    channels, heights, widths = zip(*written.shapes, strict=True)
    class_pixels, void_pixels = meaning.totals(written.labels().counts)
    return SplitTable(
        names=tuple(pair.name for pair in written.pairs),
        heights=heights,
        widths=widths,
        channels=channels,
        bits=tuple(written.bits),
        class_pixels=class_pixels,
        void_pixels=void_pixels,
    )
