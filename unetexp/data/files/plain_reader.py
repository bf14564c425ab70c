"""How the files of a sample are decoded where a source has no way of its own."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from unetexp.data.collection import Labels
from unetexp.data.files.file_sample import FileReader, FileSample
from unetexp.data.files.pages import page_of
from unetexp.data.labels import VOID
from unetexp.data.reading.formats.detection import read_rasters
from unetexp.data.reading.formats.tiff import page_count
from unetexp.data.reading.formats.tiff_pages import several_mask_pages, several_pages
from unetexp.data.reading.image_decoding import StoredImage, read_stored_image
from unetexp.data.reading.input_form import AS_STORED, InputForm
from unetexp.data.reading.stored_mask import StoredMask, labels_of, read_stored_mask
from unetexp.errors import DataError

PLAIN_NAME = "plain"


def plain_reader(form: InputForm = AS_STORED) -> FileReader:
    """Images and masks as `form` says, masks as plain labels."""
    return FileReader(
        PLAIN_NAME,
        image=partial(stored_image, form=form),
        mask=partial(_labels_of_sample, form=form),
        stored=partial(stored_mask, form=form),
    )


def stored_image(sample: FileSample, form: InputForm) -> StoredImage:
    """The sample's channels before scaling. Raises DataError."""
    return read_stored_image(sample.images, form, page_of(sample))


def stored_mask(sample: FileSample, form: InputForm) -> StoredMask:
    """The sample's mask as stored, turned as `form.exif` says. Raises DataError."""
    orientation = None
    if form.exif == "none":
        orientation = 1
    elif form.exif == "both":
        orientation = read_rasters(sample.image, page_of(sample), all_pages=True)[0].orientation
    several = partial(_several_pages, sample, form)
    return read_stored_mask(sample.mask, page_of(sample), orientation, several)


def _several_pages(sample: FileSample, form: InputForm, count: int) -> DataError:
    """The error about a mask of so many pages: what those of its image are is asked as well."""
    of_image = page_count(sample.image)
    if form.pages is None and of_image > 1:
        return several_pages(sample.mask, count)
    return several_mask_pages(sample.mask, count, as_samples=of_image == count)


def _labels_of_sample(sample: FileSample, form: InputForm) -> Labels:
    mask = stored_mask(sample, form)
    if _are_labels(mask.values):
        mask = replace(mask, values=mask.values.astype(np.uint8))
    return labels_of(sample.mask, mask)


def _are_labels(values: npt.NDArray[Any]) -> bool:
    """Whether floats, or whole numbers with a sign or of 32 bits, are all labels."""
    within = values.min() >= 0 and values.max() <= VOID
    return bool(within and (values == np.rint(values)).all())
