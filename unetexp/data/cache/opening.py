"""Opening a collection: its decoded form, from the cache or built into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from unetexp.data.cache.build import build_index
from unetexp.data.cache.decoding import Collects, FileDecoder
from unetexp.data.cache.room import Room
from unetexp.data.cache.store import Index, open_cached
from unetexp.data.cache_folder import cache_folder
from unetexp.data.collection import Collection, Progress
from unetexp.data.dataset import Dataset
from unetexp.data.files.file_hashing import content_hash
from unetexp.data.resizing import VERSION, Resize, plain
from unetexp.errors import DataError


def open_collection(
    collection: Collection,
    on_progress: Progress | None = None,
    *,
    to_train: bool = True,
    source: Collects | None = None,
) -> Dataset:
    """The decoded data set, from the cache or built into it. Raises DataError.

    `to_train`: also for what only training requires, such as every class in val. `source` decodes
    samples that have no room in the cache; without it there is always room.
    """

    def build(scratch: Path, room: Room) -> Index:
        bounded = room if source is not None else None
        index = build_index(collection, scratch, bounded, on_progress)
        if to_train:  # before it is put in place: nobody needs the files
            _refuse(collection, index.problems)
        return index

    dataset = open_cached(collection.fingerprint, build, partial(_decoders, collection, source))
    if to_train:
        _refuse(collection, dataset.problems)
    # What the files and settings tell may change while the decoded set stays the same.
    notes = tuple(dict.fromkeys((*collection.notes, *dataset.notes)))
    return replace(dataset, notes=notes, void=collection.void)


def resized(collection: Collection, resize: Resize | None) -> Collection:
    """The collection with its images scaled to a working size in the cache."""
    if resize is None:
        return collection
    fingerprint = content_hash([VERSION, collection.fingerprint, plain(resize)])
    return replace(collection, fingerprint=fingerprint, resize=resize)


def _decoders(
    collection: Collection, source: Collects | None, index: Index
) -> Mapping[str, FileDecoder]:
    assert source is not None
    place = cache_folder() / index.fingerprint
    ceiling = index.form.ceiling if index.form else None
    return {
        name: FileDecoder(source, place, name, index.resize, index.label_table, ceiling, pairs)
        for name, pairs in collection.pairs().items()
    }


def _refuse(collection: Collection, problems: Sequence[str]) -> None:
    if problems:
        raise DataError("\n".join(f"{collection.where}: {problem}" for problem in problems))
