"""Loading the samples of a set: scaled alike, with notes on what was assumed about their files.

C channels, H W image size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock

import numpy as np

from unetexp.data.collection import Labels, RawImage, ReadingResult
from unetexp.data.files.file_sample import FileReader, FileSample
from unetexp.data.files.value_survey import Survey, kind_of, survey
from unetexp.data.reading.channels import Channels, selected
from unetexp.data.reading.image_decoding import StoredImage
from unetexp.data.reading.input_form import FULL_16, InputForm
from unetexp.data.reading.orientation import is_turned, swaps_sides
from unetexp.data.reading.orientation_check import EdgeFit, edge_fit, orientation_fit
from unetexp.data.reading.value_ranges import clipped_pixels, scaled
from unetexp.errors import DataError


class SampleLoader:
    """Loads the samples of one set. May be used from any thread.

    Where the numbers need a range and none is set, the images of `train` are read first to find
    it; with `lenient` those that cannot be read are left out of that.
    """

    def __init__(
        self,
        reader: FileReader,
        form: InputForm,
        train: Sequence[FileSample],
        *,
        lenient: bool = False,
    ) -> None:
        self._reader, self._form, self._train = reader, form, train
        self._lenient = lenient
        self._survey: Survey | None = None
        self._measuring, self._noting = Lock(), Lock()
        self._noted: dict[str, list[str]] = {}
        self._fits: dict[str, EdgeFit] = {}  # of each sample whose tag tells nothing by its size
        self._outside = self._values = 0
        self._other_channels = False
        self._dropped: dict[str, int] = {}

    def load(self, sample: FileSample) -> tuple[RawImage, Labels]:
        """Image (C, H, W) uint8 or uint16 and mask (H, W). Raises DataError."""
        stored = self._stored(sample)
        form = self._form_of(sample, stored)
        image = scaled(stored.parts, form)
        mask = self._reader.mask(sample)
        self._check_sides(sample, stored, image, mask)
        self._take_note(sample, stored, image, mask, form)
        return image, mask

    def load_mask(self, sample: FileSample) -> Labels:
        """The mask (H, W) alone. Raises DataError."""
        return self._reader.mask(sample)

    def result(self) -> ReadingResult:
        """What was found while all samples were loaded.

        Raises DataError if the masks were evidently drawn on images that are turned.
        """
        notes = [f"{_counted(names)}: {text}." for text, names in sorted(self._noted.items())]
        form = self._survey.form if self._survey else self._form
        if self._reader.volumes is not None:
            form = form.model_copy(update={"volumes": self._reader.volumes})
        notes += [f"{note}." for note in self._survey.notes] if self._survey else []
        if form.ranges is not None and self._values:
            notes.append(f"{self._outside / self._values:.2%} of the values lie outside: clipped.")
        notes += _orientation_note(self._fits)
        return ReadingResult(
            notes=tuple(notes),
            image_max=self._reader.image_max if form.ranges is None else FULL_16,
            form=form,
            anew=self._other_channels or form.fills != self._form.fills,
        )

    def dropped_bands(self) -> Mapping[str, int]:
        """The bands of each image whose alpha, which is left out, may be one of them."""
        return self._dropped

    def fill_shares(self) -> Mapping[float, float]:
        """The values that are taken as no measurement, with their shares of the pixels."""
        found = self._survey is not None and self._survey.form.fills and not self._form.fills
        return self._survey.fill_shares if self._survey and found else {}

    def _stored(self, sample: FileSample) -> StoredImage:
        image = self._reader.image(sample)
        if isinstance(image, StoredImage):
            return image
        return StoredImage((selected(sample.image, image, self._form.bands),))

    def _form_of(self, sample: FileSample, stored: StoredImage) -> InputForm:
        """The form with ranges where the samples need them; measured once."""
        if len(stored.parts) == 1 and self._survey is None:
            (part,) = stored.parts
            assert part is not None
            if self._form.ranges is not None or part.dtype in (np.uint8, np.uint16):
                return self._form
        with self._measuring:
            if self._survey is None:
                self._survey = self._measured()
        for part, kinds in zip(stored.parts, self._survey.kinds, strict=True):
            if part is not None and self._form.ranges is None:
                _check_kind(sample, part, kinds)
        return self._survey.form

    def _measured(self) -> Survey:
        found = survey(self._train, self._parts, self._form)
        if self._form.ranges is None:
            return found
        form = found.form.model_copy(
            update={"ranges": self._form.ranges, "fills": self._form.fills}
        )
        return Survey(form, (), found.kinds)

    def _parts(self, sample: FileSample) -> Sequence[Channels | None]:
        try:
            return self._stored(sample).parts
        except DataError:
            if self._lenient:
                return ()
            raise

    def _check_sides(
        self, sample: FileSample, stored: StoredImage, image: RawImage, mask: Labels
    ) -> None:
        turned = self._form.exif == "image" and swaps_sides(stored.orientation)
        if turned and image.shape[1:] != mask.shape and image.shape[:0:-1] == mask.shape:
            raise DataError(
                f"{sample.mask}: the mask is {mask.shape[0]} x {mask.shape[1]} pixels (height x "
                f"width). So is its image {sample.image} as stored, but its EXIF tag (orientation "
                f"{stored.orientation}) turns it to {image.shape[1]} x {image.shape[2]}. If the "
                "masks were drawn on the images as stored: --set data.exif=none reads both so, "
                "--set data.exif=both turns both upright."
            )

    def _take_note(
        self,
        sample: FileSample,
        stored: StoredImage,
        image: RawImage,
        mask: Labels,
        form: InputForm,
    ) -> None:
        turned = self._form.exif == "image" and is_turned(stored.orientation)
        fit = edge_fit(image, mask, stored.orientation) if turned else None
        outside, values = clipped_pixels(stored.parts, form)
        notes = [*stored.notes]
        if len(image) not in (1, 3) and form.bands is None:
            notes.append(f"{len(image)} channels, all of which are read")
        with self._noting:
            for note in notes:
                self._noted.setdefault(note, []).append(sample.name)
            if fit is not None:
                self._fits[sample.name] = fit
            self._outside, self._values = self._outside + outside, self._values + values
            self._other_channels |= len(image) not in (1, 3)
            if stored.dropped_of:
                self._dropped[sample.name] = stored.dropped_of


def _check_kind(sample: FileSample, part: Channels, kinds: frozenset[str]) -> None:
    if kinds and kind_of(part) not in kinds:
        raise DataError(
            f"{sample.image}: this file holds {kind_of(part)}, and the train images "
            f"{' and '.join(sorted(kinds))}: they have no common scale. Store all images in one "
            "way, or say which values are 0 and 1.0: --set 'data.value_range=[LOW, HIGH]'."
        )


def _counted(names: Sequence[str]) -> str:
    first = min(names)
    return f"1 image ({first})" if len(names) == 1 else f"{len(names)} images (such as {first})"


def _orientation_note(fits: Mapping[str, EdgeFit]) -> list[str]:
    """A note on turned images of unchanged size; DataError where the masks fit the stored frame."""
    fit = orientation_fit([*fits.values()])
    if not fit.images:
        return []
    figures = (
        f"the images' gradient along the masks' edges is {fit.as_read:.2f} times that elsewhere "
        f"with the images turned as their EXIF tags say, and {fit.stored:.2f} times with the "
        f"images as stored ({fit.images} images)"
    )
    if fit.verdict == "stored":
        raise DataError(
            f"The masks fit the images as stored better than the images turned upright: {figures}. "
            "Read both as stored: --set data.exif=none, or turn both upright: "
            "--set data.exif=both. To keep the images turned and the masks as they are, remove "
            "the tags from copies of the images that are upright."
        )
    fits_as = "cannot be told from" if fit.verdict == "cannot tell" else "is confirmed by"
    as_stored = [name for name, each in fits.items() if each.is_as_stored]
    but = f" But {_counted(as_stored)} fit their masks better as stored." if as_stored else ""
    return [f"that masks were drawn on upright images {fits_as} their edges: {figures}.{but}"]
