"""Masks that hold more than numbers of 8 bits: which sets have them, and their coded reading."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

from unetexp.data.files.file_sample import FileReader, FileSample, Listing
from unetexp.data.label_values.coding import Coding, Rules, names_colours
from unetexp.data.reading.mask_values import header_of
from unetexp.data.threads import mapped_in_threads


def need_coding(
    listing: Listing, reader: FileReader, label_map: str | None, ignore: str | None
) -> bool:
    """Whether the values of the masks have to be surveyed before any mask can be read."""
    if reader.stored is None:
        return False
    colours = names_colours(label_map, ignore) or bool(listing.class_colours)
    return colours or _any_unlike_numbers(listing)


def rules_of(
    listing: Listing, samples: Sequence[FileSample], label_map: str | None, ignore: str | None
) -> Rules:
    """What is said about the values in the masks of `samples`."""
    return Rules(
        where=str(listing.root),
        mask_files=[str(sample.mask) for sample in samples],
        label_map=label_map,
        ignore=ignore,
        class_names=listing.class_names,
        colours=listing.class_colours,
        indexed=_indexed(listing),
    )


def coded_reader(reader: FileReader, coding: Coding) -> FileReader:
    """The reader whose masks are as `coding` says; its name tells what the coding is."""
    stored = reader.stored
    assert stored is not None
    content = json.dumps([coding.record(), coding.label_map]).encode()
    name = f"{reader.name}, masks coded {hashlib.sha256(content).hexdigest()[:16]}"
    return replace(reader, name=name, mask=lambda sample: coding.of(stored(sample)))


def _indexed(listing: Listing) -> bool:
    return listing.indexed or listing.label_map is not None


def _any_unlike_numbers(listing: Listing) -> bool:
    """Whether some masks hold more than numbers of 8 bits, or indices of different palettes."""
    paths = dict.fromkeys(sample.mask for sample in listing.samples())
    headers = list(mapped_in_threads(header_of, paths))
    palettes = {header.palette for header in headers if header.palette and not _indexed(listing)}
    return len(palettes) > 1 or not all(header.plain for header in headers)
