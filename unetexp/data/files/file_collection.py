"""Collections whose images and masks are files, identified by the files' content.

C channels, H W image size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unetexp.data.cache_folder import remembered_array
from unetexp.data.collection import Collection, Pair, Progress
from unetexp.data.files.coded_masks import coded_reader, need_coding, rules_of
from unetexp.data.files.file_hashing import content_hash, file_digests
from unetexp.data.files.file_sample import FileReader, FileSample, Listing
from unetexp.data.files.mask_survey import survey
from unetexp.data.files.pages import pages_as_samples
from unetexp.data.files.plain_reader import plain_reader
from unetexp.data.files.sample_loading import SampleLoader
from unetexp.data.label_values.coding import Coding, names_colours
from unetexp.data.label_values.label_map import UNMAPPED, value_table
from unetexp.data.label_values.mask_coding import coding_of
from unetexp.data.labels import VOID
from unetexp.data.reading.input_form import AS_STORED, InputForm
from unetexp.data.splits.fold_names import is_fold, is_training
from unetexp.data.splits.seeded import Classes, differ
from unetexp.data.threads import mapped_and_told
from unetexp.errors import DataError

_DECODING = 1  # increased when the same file is decoded to other pixels than before

PLAIN = plain_reader()

_FIRST_READERS = (PLAIN.name, "oxford_pet trimaps")  # earlier fingerprints do not name them

Splitting = Callable[[Sequence[FileSample], Classes], Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class Reading:
    """How the files of a listing are read, and how its unsplit samples are split."""

    split: Splitting  # names of each split, given the samples and the classes in their masks
    split_record: Mapping[str, Any]  # how the splits are made; JSON-safe
    reader: FileReader = PLAIN
    label_map: str | None = None
    ignore: str | None = None  # stored values that are void
    form: InputForm = AS_STORED


def collect_files(
    listing: Listing, reading: Reading, on_progress: Progress | None = None
) -> Collection:
    """The collection of all samples of `listing`; reads every file for its content hash.

    The same content under the same names below another root is the same collection.
    """
    listing = prepared(listing, reading.form)
    digests = _digests(listing, on_progress)
    coding, wide = _coding(listing, reading, digests, on_progress)
    names, reading = listing.class_names, _as_coded(reading, coding, listing.label_map)
    splits, record = dict(listing.splits), dict(reading.split_record)
    if listing.unsplit:
        classes = _classes_of(listing.unsplit, digests, reading, on_progress)
        splits = {**_drawn(listing, reading.split, classes), **splits}
        if differ(classes):
            record["stratified"] = "by class"
    content = {
        "decoding": _DECODING,
        "classes": names,
        "split": record,
        "files": _content(listing.root, splits, digests),
        **_further_content(reading, splits),
    }
    trained_on = [each for name, members in splits.items() if is_training(name) for each in members]
    loader = SampleLoader(reading.reader, reading.form, trained_on)
    return Collection(
        where=str(listing.root),
        fingerprint=content_hash(content),
        pairs=lambda: {
            name: [_pair(sample, loader) for sample in members] for name, members in splits.items()
        },
        class_names=coding.class_names if coding else names,
        split_record=record,
        notes=(*listing.notes, *(coding.notes if coding else ()), *_leaks(splits, digests)),
        label_map=reading.label_map,
        ignore=reading.ignore,
        stored=coding.keys() if coding else (),
        wide=wide,
        void=coding.void if coding else listing.void,
        digests=digests,
        loaded=loader.result,
    )


def _coding(
    listing: Listing,
    reading: Reading,
    digests: Mapping[Path, str],
    on_progress: Progress | None,
) -> tuple[Coding | None, bool]:
    """How masks are coded that hold more than numbers of 8 bits; None where all do not.

    And whether their numbers are stored with more bits all the same.
    """
    reader, label_map, ignore = reading.reader, reading.label_map, reading.ignore
    if reader.stored is None or not need_coding(listing, reader, label_map, ignore):
        return None, False
    samples, colours = listing.samples(), names_colours(label_map, ignore)
    known = [reader.name, _DECODING, [digests[each.mask] + each.part for each in samples]]
    key = content_hash([*known, colours, "palettes, bits"])  # not in earlier surveys
    masks = survey(key, samples, reader.stored, on_progress, as_colours=colours)
    coding = coding_of(masks, rules_of(listing, samples, label_map, ignore))
    return coding, coding is None and all(mask.wide for mask in masks)


def _as_coded(reading: Reading, coding: Coding | None, label_map: str | None) -> Reading:
    """The reading with masks read as `coding` says, or by the data's own `label_map`."""
    if coding is None:
        return replace(reading, label_map=reading.label_map or label_map)
    coded = coded_reader(reading.reader, coding)
    return replace(reading, reader=coded, label_map=coding.label_map, ignore=None)


def prepared(listing: Listing, form: InputForm) -> Listing:
    """The listing with a sample for each page where pages are samples; DataError for gaps."""
    for sample in listing.samples() if form.missing == "error" else ():
        if None in sample.images:
            raise DataError(
                f"{listing.root}: {sample.name} lacks file {sample.images.index(None) + 1} of "
                f"{len(sample.images)} (it has {', '.join(map(str, sample.files[:-1]))}). Add it, "
                "or read zeros in its place: --set data.missing=zeros."
            )
    return pages_as_samples(listing) if form.pages == "samples" else listing


def _digests(listing: Listing, on_progress: Progress | None) -> dict[Path, str]:
    paths = list(dict.fromkeys(path for each in listing.samples() for path in each.files))
    return dict(zip(paths, file_digests(paths, on_progress), strict=True))


def _content(
    root: Path, splits: Mapping[str, Sequence[FileSample]], digests: Mapping[Path, str]
) -> dict[str, list[list[str]]]:
    """What lies where in each split: paths below `root` and content hashes."""
    return {
        name: [
            [_place(path, root), digests[path], *([sample.part] if sample.part else [])]
            for sample in members
            for path in sample.files
        ]
        for name, members in splits.items()
    }


def _further_content(
    reading: Reading, splits: Mapping[str, Sequence[FileSample]]
) -> dict[str, Any]:
    """What else makes a set another one; what is not set is left out, as earlier versions did."""
    content: dict[str, Any] = {}
    if reading.label_map is not None:
        content["label_map"] = reading.label_map
    if reading.ignore is not None:
        content["ignore"] = reading.ignore
    if any(sample.group for members in splits.values() for sample in members):
        content["groups"] = {k: [each.group for each in members] for k, members in splits.items()}
    if reading.reader.name not in _FIRST_READERS:
        content["reader"] = reading.reader.name
    if changes := reading.form.changes():
        content["reading"] = changes
    return content


def _place(path: Path, root: Path) -> str:
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _pair(sample: FileSample, loader: SampleLoader) -> Pair:
    return Pair(
        sample.name,
        str(sample.mask),
        partial(loader.load, sample),
        sample.group,
        partial(loader.load_mask, sample),
    )


def _drawn(listing: Listing, split: Splitting, classes: Classes) -> dict[str, list[FileSample]]:
    samples = {sample.name: sample for sample in listing.unsplit}
    try:
        splits = split(listing.unsplit, classes)
    except DataError as error:
        raise DataError(f"{listing.root}: {error}") from None
    return {name: [samples[member] for member in members] for name, members in splits.items()}


def _classes_of(
    samples: Sequence[FileSample],
    digests: Mapping[Path, str],
    reading: Reading,
    on_progress: Progress | None,
) -> Classes:
    """The classes in each mask. The masks are read once; the cache stores the result."""
    known = [reading.reader.name, _DECODING, [digests[each.mask] + each.part for each in samples]]
    holds = remembered_array(
        f"{content_hash(known)}.labels.npy",
        (len(samples), VOID + 1),
        np.bool_,
        lambda: _stored_values(samples, reading.reader, on_progress),
    )
    present: npt.NDArray[np.bool_] = np.any(holds, axis=0)
    table = value_table(present, reading.label_map, reading.ignore)
    return {
        sample.name: frozenset(table[np.flatnonzero(row)].tolist()) - {VOID, UNMAPPED}
        for sample, row in zip(samples, holds, strict=True)
    }


def _stored_values(
    samples: Sequence[FileSample], reader: FileReader, on_progress: Progress | None
) -> npt.NDArray[np.bool_]:
    """Which mask holds which stored value: (masks, 256)."""

    def values(sample: FileSample) -> npt.NDArray[np.bool_]:
        return np.bincount(reader.mask(sample).reshape(-1), minlength=VOID + 1) > 0

    rows = list(mapped_and_told(values, samples, "Reading masks", on_progress))
    return np.stack(rows)


def _leaks(
    splits: Mapping[str, Sequence[FileSample]], digests: Mapping[Path, str]
) -> tuple[str, ...]:
    """A note for each split that holds images of those trained on."""
    content = {
        each: (*(digests[path] for path in each.files[:-1]), each.part)
        for members in splits.values()
        for each in members
    }
    notes = []
    for name, members in splits.items():
        seen, where = {content[each] for each in splits.get("train", ())}, "the train split"
        if name == "train":
            continue
        if "train" not in splits:  # each fold trains on the others
            others = [each for other, each in splits.items() if other != name and is_fold(other)]
            seen, where = {content[each] for each in chain(*others)}, "other folds"
        copies = [sample.name for sample in members if content[sample] in seen]
        if copies:
            notes.append(
                f"{len(copies)} of the {len(members)} images in the {name} split are also in "
                f"{where} (such as {copies[0]}): metrics on {name} will look too good."
            )
    return tuple(notes)
