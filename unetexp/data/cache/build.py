"""From pairs of files to the decoded form in the cache.

Images are decoded and scaled to the working size one after the other. Their masks wait beside
them, compressed as they are stored, until the values of all of them are known; then each value
becomes a class, and the masks are scaled, too.

C channels, H W image size.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from unetexp.data.cache.decoding import write_digests
from unetexp.data.cache.room import Room
from unetexp.data.cache.store import FORMAT, Index
from unetexp.data.cache.waiting_masks import (
    kept_classes,
    load_sample,
    waiting_mask,
    waiting_masks,
)
from unetexp.data.cache.written import Scale, Written, clip_file, common_channels, scale_of
from unetexp.data.collection import (
    Collection,
    Labels,
    Pair,
    Progress,
    ReadingResult,
)
from unetexp.data.decoded.split_table import SplitTable
from unetexp.data.label_values.label_checks import Meaning, interpret
from unetexp.data.labels import VOID
from unetexp.data.reading.input_form import AS_STORED, InputForm
from unetexp.data.resizing import Resize, resize_text
from unetexp.data.threads import mapped_in_threads
from unetexp.errors import listed


def build_index(
    collection: Collection,
    scratch: Path,
    room: Room | None,
    on_progress: Progress | None = None,
) -> Index:
    """Decode the collection into `scratch`, as far as there is `room` (None: for all).

    Raises DataError for files that cannot be used.
    """
    return _Builder(collection, scratch, room, on_progress).index()


class _Builder:
    """One build: `room` is asked before anything is written, None is room for all."""

    def __init__(
        self,
        collection: Collection,
        scratch: Path,
        room: Room | None,
        on_progress: Progress | None,
    ) -> None:
        self.collection, self.scratch, self.room = collection, scratch, room
        self.splits = collection.pairs()
        self.total, self.done = sum(map(len, self.splits.values())), 0
        self.on_progress = on_progress
        self.bytes = 0  # that the set takes, or would take
        self.lack = ""  # why it is not kept

    def index(self) -> Index:
        """Write the files, as far as there is room; returns what is in them."""
        with warnings.catch_warnings():  # oversized images get an error of ours
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            written = {name: self._decode(name, pairs) for name, pairs in self.splits.items()}
        collection = self.collection
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
            lambda name, index: self._stored_mask(name, written[name], index),
            collection.stored,
            wide=collection.wide,
        )
        self.done = 0
        vanished: Counter[int] = Counter()
        for name, split in written.items():
            vanished += self._classify(name, split, meaning)
        if self.lack:
            write_digests(self.scratch, collection.digests)
        tables = {n: _table(split, meaning, collection.resize) for n, split in written.items()}
        form = self._clipped(result.form, scale, tables) if scale.clips else result.form
        own = self._notes(meaning, vanished)
        return Index(
            format=FORMAT,
            fingerprint=collection.fingerprint,
            data_fingerprint=_read_anew(collection, result, scale),
            class_names=meaning.class_names,
            channels=common_channels(collection.where, written),
            bits=scale.bits,
            image_max=scale.image_max,
            form=form,
            notes=(*result.notes, *scale.notes, *meaning.notes, *own),
            problems=meaning.problems,
            split_record=dict(collection.split_record),
            splits=tables,
            resize=collection.resize,
            seeks_fills=True,
            left_out_bytes=max(1, self.bytes) if self.lack else 0,
            label_table=tuple(meaning.table.astype(np.uint8).tolist()) if self.lack else (),
        )

    def _decode(self, name: str, pairs: Sequence[Pair]) -> Written:
        """Write a split's images, and its stored masks for the time being."""
        written = Written(pairs)
        work = partial(load_sample, resize=self.collection.resize)
        with (
            (self.scratch / f"{name}.images").open("wb") as images,
            (self.scratch / f"{name}.waiting").open("wb") as masks,
        ):
            for image, shape, counts, mask in mapped_in_threads(work, pairs):
                self._told("Decoding images")
                if self._has_room(image.nbytes + image.shape[1] * image.shape[2]):
                    images.write(image.tobytes())
                else:
                    images.truncate(0)
                masks.write(mask)
                written.add(image, shape, counts, len(mask))
        return written

    def _classify(self, name: str, written: Written, meaning: Meaning) -> Counter[int]:
        """Write a split's masks; returns which classes vanish from how many of them."""
        resize, vanished = self.collection.resize, Counter[int]()
        table = meaning.table.astype(np.uint8)
        waiting = self.scratch / f"{name}.waiting"
        if self.lack:
            (self.scratch / f"{name}.images").unlink()
            if resize is None:
                waiting.unlink()
                return vanished
        work = partial(kept_classes, table=table, resize=resize)
        stored = zip(waiting_masks(waiting, written.waiting_bytes), written.originals, strict=True)
        with (
            (self.scratch / f"{name}.masks").open("wb") as masks,
            (self.scratch / f"{name}.originals").open("wb") as originals,
        ):
            for kept, before, original in mapped_in_threads(work, stored):
                if resize is not None:
                    self._told("Scaling masks")
                    counts = np.bincount(kept.reshape(-1), minlength=VOID + 1)
                    written.kept_counts += counts
                    written.original_bytes.append(len(original))
                    vanished.update(np.flatnonzero((before > 0) & (counts == 0)).tolist())
                if not self.lack:
                    masks.write(kept.tobytes())
                    originals.write(original)
        waiting.unlink()
        if self.lack:
            (self.scratch / f"{name}.masks").unlink()
        if self.lack or resize is None:
            (self.scratch / f"{name}.originals").unlink()
        return vanished

    def _clipped(
        self, form: InputForm | None, scale: Scale, tables: Mapping[str, SplitTable]
    ) -> InputForm:
        """The form of further files; the images that were written are clipped to the scale."""
        for name, table in tables.items() if not self.lack else ():
            clip_file(self.scratch / f"{name}.images", table, scale.image_max)
        return (form or AS_STORED).model_copy(update={"ceiling": scale.image_max})

    def _stored_mask(self, name: str, written: Written, index: int) -> Labels:
        """The mask (H, W) of a sample as stored, which waits for its classes."""
        sizes, shape = written.waiting_bytes, written.originals[index]
        return waiting_mask(self.scratch / f"{name}.waiting", sizes, index, shape)

    def _has_room(self, size: int) -> bool:
        """Whether the next sample is kept; once there is no room none is."""
        self.bytes += size
        if self.room is not None and not self.lack:
            expected = self.bytes / self.done * self.total
            if not self.room.take(size, expected):
                self.lack = self.room.lack
        return not self.lack

    def _told(self, what: str) -> None:
        self.done += 1
        if self.on_progress:
            self.on_progress(what, self.done, self.total)

    def _notes(self, meaning: Meaning, vanished: Counter[int]) -> Iterator[str]:
        resize = self.collection.resize
        if resize is not None:
            yield (
                f"images are scaled to {resize_text(resize)} (data.resize) and predictions are "
                "scaled back: metrics are those of the images' own size, val/loss is of the "
                "working size."
            )
        lost = [f"{meaning.class_names[k]} from {n}" for k, n in vanished.items() if k != VOID]
        if lost:
            yield (
                f"at the working size these classes vanish from so many masks: {listed(lost)}. "
                "They are too small there to be learnt or found: choose a larger data.resize."
            )
        if self.lack:
            yield (
                f"the decoded images take {self.lack}: they are decoded from their files each time "
                "they are needed, which makes every epoch slower. Choose a smaller data.resize, or "
                "make room."
            )


def _read_anew(collection: Collection, result: ReadingResult, scale: Scale) -> str:
    """The set's fingerprint: another one where earlier versions made other pixels of its files."""
    if not result.anew and not scale.clips:
        return collection.fingerprint
    return hashlib.sha256(f"{collection.fingerprint} read anew".encode()).hexdigest()


def _table(written: Written, meaning: Meaning, resize: Resize | None) -> SplitTable:
    channels, heights, widths = zip(*written.shapes, strict=True)
    class_pixels, void_pixels = meaning.totals(written.labels().counts)
    originals: dict[str, tuple[int, ...]] = {}
    if resize is not None:
        class_pixels = tuple(written.kept_counts[: len(class_pixels)].tolist())
        void_pixels = int(written.kept_counts[VOID])
        own_heights, own_widths = zip(*written.originals, strict=True)
        originals = {
            "original_heights": own_heights,
            "original_widths": own_widths,
            "original_bytes": tuple(written.original_bytes),
        }
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
        **originals,
    )
