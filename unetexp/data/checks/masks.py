"""How the masks of a set are read for the check: as a sweep reads them, past what stops a sweep.

H W mask size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from unetexp.data.checks.rules.labelling import StoredValues
from unetexp.data.collection import Labels, Progress
from unetexp.data.files.coded_masks import coded_reader, need_coding, rules_of
from unetexp.data.files.file_sample import FileReader, FileSample, Listing
from unetexp.data.label_values.coding import names_colours
from unetexp.data.label_values.mask_coding import coding_of
from unetexp.data.labels import VOID
from unetexp.data.reading.mask_values import MaskValues, colours_of, values_in
from unetexp.data.reading.stored_mask import StoredMask
from unetexp.data.sources.file_source import FileSource
from unetexp.data.threads import mapped_in_threads
from unetexp.errors import DataError

Stored = Callable[[FileSample], StoredMask]


def mask_reading(
    source: FileSource, listing: Listing, on_progress: Progress | None = None
) -> tuple[FileReader, StoredValues]:
    """The reader of a listing's files, and what its masks' numbers are.

    What a single mask is refused for is raised by the reader.
    """
    reader, label_map, ignore = source.reader(), source.label_map, source.ignore
    own = label_map or listing.label_map
    plain = StoredValues(own, ignore, listing.class_names, listing.method)
    if reader.stored is None or not need_coding(listing, reader, label_map, ignore):
        return reader, plain
    samples, colours = listing.samples(), names_colours(label_map, ignore)
    found, faults = _surveyed(samples, reader.stored, on_progress, as_colours=colours)
    readable = [sample for sample in samples if sample in found]
    if not readable:
        return reader, plain
    rules = rules_of(listing, readable, label_map, ignore)
    try:
        coding = coding_of([found[sample] for sample in readable], rules)
    except DataError as error:
        uncoded = replace(reader, mask=_without(faults, _numbers(reader.stored)))
        return uncoded, replace(plain, refused=str(error))
    if coding is None:
        return reader, replace(plain, wide=all(found[sample].wide for sample in readable))
    coded = coded_reader(reader, coding)
    values = StoredValues(coding.label_map, None, coding.class_names, listing.method, coding.notes)
    return replace(coded, mask=_without(faults, coded.mask)), values


def _surveyed(
    samples: Sequence[FileSample], stored: Stored, on_progress: Progress | None, *, as_colours: bool
) -> tuple[dict[FileSample, MaskValues], dict[FileSample, str]]:
    """The values of each mask that can be read, and what is wrong with the others."""

    def values_of(sample: FileSample) -> MaskValues | str:
        try:
            return values_in(sample.mask, stored(sample), as_colours=as_colours)
        except DataError as error:
            return str(error)

    found, faults = dict[FileSample, MaskValues](), dict[FileSample, str]()
    results = zip(samples, mapped_in_threads(values_of, samples), strict=True)
    for number, (sample, result) in enumerate(results, 1):
        if isinstance(result, str):
            faults[sample] = result
        else:
            found[sample] = result
        if on_progress:
            on_progress("Reading masks", number, len(samples))
    return found, faults


def _without(
    faults: Mapping[FileSample, str], read: Callable[[FileSample], Labels]
) -> Callable[[FileSample], Labels]:
    """`read`, which raises for masks whose values are not known to it."""

    def mask(sample: FileSample) -> Labels:
        if sample in faults:
            raise DataError(faults[sample])
        return read(sample)

    return mask


def _numbers(stored: Stored) -> Callable[[FileSample], Labels]:
    """Any numbers for a mask whose values mean nothing yet, so that its areas can be shown."""

    def mask(sample: FileSample) -> Labels:
        found = stored(sample)
        values = colours_of(found) if found.values.ndim == 3 else found.values.astype(np.int64)
        return np.where(values == 0, 0, 1 + (values - 1) % (VOID - 1)).astype(np.uint8)

    return mask
