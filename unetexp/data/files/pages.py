"""TIFFs of several pages whose pages are samples: image page i with mask page i."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from unetexp.data.files.file_sample import FileSample, Listing
from unetexp.data.reading.formats.tiff import page_count
from unetexp.data.threads import mapped_in_threads
from unetexp.errors import DataError

_PART = re.compile(r"page (\d+)")
_ENOUGH_FILES = 5  # from here on, the pages of a file stay in one split


def page_of(sample: FileSample) -> int | None:
    """The page that the sample is, from 0; None for whole files."""
    found = _PART.fullmatch(sample.part)
    return int(found.group(1)) if found else None


def pages_as_samples(listing: Listing) -> Listing:
    """The listing with one sample for each page; those of one page stay as they are.

    Raises DataError where an image and its mask differ in their pages.
    """
    samples = listing.samples()
    apart = dict(zip(samples, mapped_in_threads(_page_samples, samples), strict=True))
    grouped = len(samples) >= _ENOUGH_FILES

    def expanded(members: Sequence[FileSample]) -> list[FileSample]:
        return [
            page if grouped or member.group else dataclasses.replace(page, group="")
            for member in members
            for page in apart[member]
        ]

    note = (
        "pages are samples; those of one file stay in one split where it is drawn"
        if grouped
        else "pages are samples; neighbouring pages of one file may lie in different splits and "
        "resemble each other"
    )
    return dataclasses.replace(
        listing,
        splits={name: expanded(members) for name, members in listing.splits.items()},
        unsplit=expanded(listing.unsplit),
        notes=(*listing.notes, f"{note}."),
    )


def _page_samples(sample: FileSample) -> list[FileSample]:
    counts = {path: page_count(path) for path in sample.files}
    count = counts[sample.image]
    for path, pages in counts.items():
        if pages != count:
            raise DataError(
                f"{sample.image} holds {count} pages and {path} {pages}: with "
                "data.pages=samples every page of an image needs its page of the mask."
            )
    if count == 1:
        return [sample]
    group = sample.group or sample.name
    return [
        dataclasses.replace(
            sample, name=f"{sample.name}_p{page:03d}", part=f"page {page}", group=group
        )
        for page in range(count)
    ]
