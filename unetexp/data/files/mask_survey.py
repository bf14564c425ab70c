"""What the masks of a set hold, in one pass that is remembered by the masks' content."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

from unetexp.data.cache_folder import remembered
from unetexp.data.collection import Progress
from unetexp.data.files.file_sample import FileSample
from unetexp.data.reading.mask_values import MaskValues, values_in
from unetexp.data.reading.stored_mask import StoredMask
from unetexp.data.threads import mapped_and_told


def survey(
    key: str,
    samples: Sequence[FileSample],
    read: Callable[[FileSample], StoredMask],
    on_progress: Progress | None = None,
    *,
    as_colours: bool = False,
) -> list[MaskValues]:
    """The values of each sample's mask, which `read` reads; `key` stands for their content.

    Raises DataError for a mask that cannot be read or whose numbers are no labels.
    """

    def values_of(sample: FileSample) -> MaskValues:
        return values_in(sample.mask, read(sample), as_colours=as_colours)

    def read_all() -> bytes:
        found = mapped_and_told(values_of, samples, "Reading masks", on_progress)
        return json.dumps([asdict(values) for values in found]).encode()

    rows = json.loads(remembered(f"{key}.values.json", read_all))
    of_lists = ("values", "counts", "palette")
    return [MaskValues(**{**row, **{name: tuple(row[name]) for name in of_lists}}) for row in rows]
