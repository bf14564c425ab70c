"""The cache of decoded data sets: one folder per fingerprint, complete or absent.

    <cache folder>/<fingerprint>/index.json                    written last
    <cache folder>/<fingerprint>/<split>.images, <split>.masks, <split>.originals

A set is built in a scratch folder next to its place and then renamed; if two processes build it,
the first to finish wins.
Where there is no room for a set (`room.py`), its index alone is written.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from unetexp.atomic_folder import sync
from unetexp.data.cache.room import INDEX, Room, hold
from unetexp.data.cache_folder import cache_folder, explained_write_errors
from unetexp.data.dataset import Dataset
from unetexp.data.decoded.split import Decoder, Split
from unetexp.data.decoded.split_table import SplitTable
from unetexp.data.folded import dataset_of
from unetexp.data.reading.input_form import InputForm
from unetexp.data.resizing import ResizeSetting

FORMAT = 3
_STALE_S = 24 * 3600


class Index(BaseModel):
    """Everything about a decoded data set except its pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    fingerprint: str  # by which it is found
    data_fingerprint: str  # by which its users know it
    class_names: tuple[str, ...]
    channels: int
    bits: int
    image_max: int
    form: InputForm | None
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    split_record: dict[str, Any]
    splits: dict[str, SplitTable]
    resize: ResizeSetting = None
    seeks_fills: bool = False  # False: written before ranges left out what is no measurement
    # a set that had no room: the bytes that it would take, and the class of each stored value
    left_out_bytes: int = 0
    label_table: tuple[int, ...] = ()

    @property
    def is_stored(self) -> bool:
        """Whether the cache holds the pixels."""
        return not self.left_out_bytes


Build: TypeAlias = Callable[[Path, Room], Index]
Decoders: TypeAlias = Callable[[Index], Mapping[str, Decoder]]


def open_cached(fingerprint: str, build: Build, decoders: Decoders) -> Dataset:
    """The data set of `fingerprint`; `build(scratch folder, room)` writes it if it is not cached.

    `decoders` of a set that has no room in the cache decode its samples each time.

    Raises DataError if the cache folder cannot be written, and what `build` raises.
    """
    place = cache_folder() / fingerprint
    index = _read_index(place)
    if index is None or _has_room_now(place, index):
        with explained_write_errors():
            place.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(place.with_suffix(".lock")):
                index = _read_index(place)
                if index is None or _has_room_now(place, index):
                    index = _build(place, build)
    hold(place)
    made = {} if index.is_stored else decoders(index)
    splits = {
        name: Split(place, name, table, index.channels, index.bits, made.get(name))
        for name, table in index.splits.items()
    }
    return dataset_of(
        splits,
        fingerprint=index.data_fingerprint,
        class_names=index.class_names,
        channels=index.channels,
        image_max=index.image_max,
        form=index.form,
        notes=index.notes,
        problems=index.problems,
        split_record=index.split_record,
        resize=index.resize,
    )


def _has_room_now(place: Path, index: Index) -> bool:
    """Whether a set that was left out before has room in the meantime."""
    return not index.is_stored and index.left_out_bytes <= Room(place.parent).free_bytes()


def _build(place: Path, build: Build) -> Index:
    _remove_stale(place.parent)
    scratch = place.with_name(f"{place.name}.building-{uuid.uuid4().hex}")
    scratch.mkdir()
    try:
        index = build(scratch, Room(place.parent))
        (scratch / INDEX).write_text(index.model_dump_json(), encoding="utf-8")
        sync(scratch)
        return _put_in_place(scratch, place, index)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _put_in_place(scratch: Path, place: Path, index: Index) -> Index:
    if place.exists():
        winner = _read_index(place)  # from a node whose lock this one does not see
        if winner is not None and (winner.is_stored or not index.is_stored):
            return winner
        damaged = place.with_name(f"{place.name}.building-{uuid.uuid4().hex}")
        place.rename(damaged)
        shutil.rmtree(damaged, ignore_errors=True)
    try:
        scratch.rename(place)
    except OSError:
        winner = _read_index(place)
        if winner is None:
            raise
        return winner
    return index


def _read_index(place: Path) -> Index | None:
    """The index of a complete data set, None if any part is missing or wrong."""
    try:
        index = Index.model_validate_json((place / INDEX).read_bytes())
        if index.format != FORMAT or index.fingerprint != place.name:
            return None
        if index.form and index.form.ranges and not index.seeks_fills:
            return None
        for name, table in index.splits.items() if index.is_stored else ():
            images, masks = place / f"{name}.images", place / f"{name}.masks"
            if images.stat().st_size != table.image_sizes().sum():
                return None
            if masks.stat().st_size != table.mask_sizes().sum():
                return None
            originals = place / f"{name}.originals"
            if table.original_bytes and originals.stat().st_size != sum(table.original_bytes):
                return None
    except (OSError, ValidationError):
        return None
    return index


def _remove_stale(folder: Path) -> None:
    """Remove what killed builds left behind."""
    for scratch in folder.glob("*.building-*"):
        if time.time() - scratch.stat().st_mtime > _STALE_S:
            shutil.rmtree(scratch, ignore_errors=True)
