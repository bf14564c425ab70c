"""From pairs of files to the decoded form in the cache.

C channels, H W image size.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from unetexp.data.cache.store import FORMAT, Index, open_cached
from unetexp.data.cache.written import Scale, Written, clip_file, common_channels, scale_of
from unetexp.data.collection import (
    Collection,
    Labels,
    Pair,
    Progress,
    RawImage,
    ReadingResult,
)
from unetexp.data.dataset import Dataset, SplitTable
from unetexp.data.files.file_hashing import mapped_in_threads
from unetexp.data.label_values.label_checks import Meaning, interpret
from unetexp.data.labels import VOID
from unetexp.data.reading.input_form import AS_STORED
from unetexp.errors import DataError

_CHUNK = 2**24


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
    # What the files and settings tell may change while the decoded set stays the same.
    return replace(dataset, notes=tuple(dict.fromkeys((*collection.notes, *dataset.notes))))


def _refuse(collection: Collection, problems: Sequence[str]) -> None:
    if problems:
        raise DataError("\n".join(f"{collection.where}: {problem}" for problem in problems))


def _build(collection: Collection, scratch: Path, on_progress: Progress | None) -> Index:
    splits = collection.pairs()
    total, done = sum(len(pairs) for pairs in splits.values()), 0
    written: dict[str, Written] = {}
    with warnings.catch_warnings():  # oversized images get an error of ours
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for name, pairs in splits.items():
            written[name] = _write(name, pairs, scratch, (done, total), on_progress)
            done += len(pairs)
    result = collection.loaded()
    scale = scale_of(written, result)
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
    tables = {name: _table(split, meaning) for name, split in written.items()}
    form = result.form
    if scale.clips:
        form = (form or AS_STORED).model_copy(update={"ceiling": scale.image_max})
        for name, table in tables.items():
            clip_file(scratch / f"{name}.images", table, scale.image_max)
    return Index(
        format=FORMAT,
        fingerprint=collection.fingerprint,
        data_fingerprint=_read_anew(collection, result, scale),
        class_names=meaning.class_names,
        channels=common_channels(collection.where, written),
        bits=scale.bits,
        image_max=scale.image_max,
        form=form,
        notes=result.notes + scale.notes + meaning.notes,
        problems=meaning.problems,
        split_record=dict(collection.split_record),
        splits=tables,
    )


def _read_anew(collection: Collection, result: ReadingResult, scale: Scale) -> str:
    """The set's fingerprint: another one where earlier versions made other pixels of its files."""
    if not result.anew and not scale.clips:
        return collection.fingerprint
    return hashlib.sha256(f"{collection.fingerprint} read anew".encode()).hexdigest()


def _write(
    name: str,
    pairs: Sequence[Pair],
    scratch: Path,
    progress: tuple[int, int],
    on_progress: Progress | None,
) -> Written:
    """Write one split's two files. `progress` is (pairs done before this split, total pairs)."""
    written = Written(pairs)
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
            if image.itemsize == 2:
                written.deep_counts += np.bincount(image.reshape(-1), minlength=2**16)
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


def _mask_at(path: Path, written: Written, index: int) -> Labels:
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


def _table(written: Written, meaning: Meaning) -> SplitTable:
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
        groups=tuple(pair.group for pair in written.pairs)
        if any(pair.group for pair in written.pairs)
        else (),
    )
