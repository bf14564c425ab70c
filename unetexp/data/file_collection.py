"""Collections whose images and masks are files, identified by the files' content.

C channels, H W image size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unetexp.data.cache import remembered_labels
from unetexp.data.collection import Collection, Labels, Pair, Progress, RawImage
from unetexp.data.file_hashing import file_digests, mapped_in_threads
from unetexp.data.image_decoding import read_image, read_mask
from unetexp.data.label_map import UNMAPPED, value_table
from unetexp.data.labels import VOID
from unetexp.data.splits import Classes, differ
from unetexp.errors import DataError

_DECODING = 1  # increased when the same file is decoded to other pixels than before


@dataclass(frozen=True)
class FilePair:
    """An image file and its mask file."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class FileReader:
    """How files are decoded; `name` changes when the same mask is decoded to other values."""

    name: str
    image: Callable[[Path], RawImage]  # (C, H, W)
    mask: Callable[[Path], Labels]  # (H, W)


PLAIN = FileReader("plain", read_image, read_mask)


@dataclass(frozen=True)
class Draw:
    """Pairs that `split` divides by name, given the classes that each mask holds."""

    pairs: Sequence[FilePair]
    split: Callable[[Classes], Mapping[str, Sequence[str]]]


def collect_files(
    root: Path,
    splits: Mapping[str, Sequence[FilePair]],
    *,
    class_names: tuple[str, ...] | None,
    split_record: Mapping[str, Any],
    draw: Draw | None = None,
    label_map: str | None = None,
    reader: FileReader = PLAIN,
    on_progress: Progress | None = None,
) -> Collection:
    """The collection of `splits` and those of `draw`; reads every file for its content hash.

    The same content under the same names below another `root` is the same collection.
    """
    pairs = [*(draw.pairs if draw else ()), *(p for members in splits.values() for p in members)]
    paths = [path for pair in pairs for path in (pair.image, pair.mask)]
    digests = dict(zip(paths, file_digests(paths, on_progress), strict=True))
    record = dict(split_record)
    if draw:
        classes = _classes_of(draw.pairs, digests, reader, label_map, on_progress)
        splits = {**_drawn(root, draw, classes), **splits}
        if differ(classes):
            record["stratified"] = "by class"
    content: dict[str, Any] = {
        "decoding": _DECODING,
        "classes": class_names,
        "split": record,
        "files": _content(root, splits, digests),
    }
    if label_map is not None:  # else left out, to keep the fingerprints of earlier versions
        content["label_map"] = label_map
    return Collection(
        where=str(root),
        fingerprint=_hash(content),
        pairs=lambda: {
            name: [_pair(pair, reader) for pair in members] for name, members in splits.items()
        },
        class_names=class_names,
        split_record=record,
        notes=_leaks(splits, digests),
        label_map=label_map,
    )


def _content(
    root: Path, splits: Mapping[str, Sequence[FilePair]], digests: Mapping[Path, str]
) -> dict[str, list[list[str]]]:
    """What lies where in each split, as paths below `root` and content hashes."""
    return {
        name: [
            [path.relative_to(root).as_posix(), digests[path]]
            for pair in members
            for path in (pair.image, pair.mask)
        ]
        for name, members in splits.items()
    }


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _pair(pair: FilePair, reader: FileReader) -> Pair:
    return Pair(
        pair.name, str(pair.mask), lambda: (reader.image(pair.image), reader.mask(pair.mask))
    )


def _drawn(root: Path, draw: Draw, classes: Classes) -> dict[str, list[FilePair]]:
    pairs = {pair.name: pair for pair in draw.pairs}
    try:
        splits = draw.split(classes)
    except DataError as error:
        raise DataError(f"{root}: {error}") from None
    return {name: [pairs[member] for member in members] for name, members in splits.items()}


def _classes_of(
    pairs: Sequence[FilePair],
    digests: Mapping[Path, str],
    reader: FileReader,
    label_map: str | None,
    on_progress: Progress | None,
) -> Classes:
    """The classes in each mask. The masks are read once; the cache stores the result."""
    masks = [pair.mask for pair in pairs]
    known = [reader.name, _DECODING, [digests[mask] for mask in masks]]
    holds = remembered_labels(
        _hash(known),
        len(masks),
        lambda: _stored_values(masks, reader, on_progress),
    )
    present: npt.NDArray[np.bool_] = np.any(holds, axis=0)
    table = value_table(present, label_map)
    return {
        pair.name: frozenset(table[np.flatnonzero(row)].tolist()) - {VOID, UNMAPPED}
        for pair, row in zip(pairs, holds, strict=True)
    }


def _stored_values(
    masks: Sequence[Path], reader: FileReader, on_progress: Progress | None
) -> npt.NDArray[np.bool_]:
    """Which mask holds which stored value: (masks, 256)."""
    holds = np.zeros((len(masks), VOID + 1), np.bool_)

    def values(mask: Path) -> npt.NDArray[np.int64]:
        return np.bincount(reader.mask(mask).reshape(-1), minlength=VOID + 1)

    for number, counts in enumerate(mapped_in_threads(values, masks)):
        holds[number] = counts > 0
        if on_progress:
            on_progress("Reading masks", number + 1, len(masks))
    return holds


def _leaks(
    splits: Mapping[str, Sequence[FilePair]], digests: Mapping[Path, str]
) -> tuple[str, ...]:
    """A note for each split that holds images of the train split."""
    train = {digests[pair.image]: pair.name for pair in splits["train"]}
    notes = []
    for name, members in splits.items():
        copies = [pair.name for pair in members if digests[pair.image] in train]
        if name != "train" and copies:
            notes.append(
                f"{len(copies)} of the {len(members)} images in the {name} split are also in the "
                f"train split (such as {copies[0]}): metrics on {name} will look too good."
            )
    return tuple(notes)
