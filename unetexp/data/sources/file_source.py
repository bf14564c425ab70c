"""What all sources that read files share: how a split is drawn and what stored values mean."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from unetexp.data.collection import Collection, Progress
from unetexp.data.files.file_collection import Reading, collect_files
from unetexp.data.files.file_sample import FileReader, FileSample, Listing
from unetexp.data.files.given_splits import cut_groups, pooled, settings_without_effect
from unetexp.data.files.grouping import group_pattern_text, grouped_by_name
from unetexp.data.files.plain_reader import plain_reader
from unetexp.data.label_values.label_map import ignore_text, label_map_text
from unetexp.data.reading.input_form import Band, Exif, Fills, InputForm, Missing, Pages, Range
from unetexp.data.sources.resized_source import ResizedSource
from unetexp.data.splits.folds import fold_split
from unetexp.data.splits.seeded import WITHOUT_GROUPS, Classes, seeded_split
from unetexp.errors import ConfigError


def absolute(path: str) -> str:
    """An absolute path, because workers have their own working directories."""
    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError:
        raise ConfigError(f"{path}: there is no such user. Give the path without `~`.") from None


class FileSource(ResizedSource):
    """A source of files. A kind finds them (`listing`); they are split, read and hashed here."""

    val_fraction: float = Field(
        0.2, gt=0, lt=1, description="share of the images for the validation split"
    )
    test_fraction: float = Field(
        0.0, ge=0, lt=1, description="share of the images for the test split; 0: no test split"
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="seed of the split")
    group_pattern: Annotated[str | None, AfterValidator(group_pattern_text)] = Field(
        None,
        description="a regular expression that finds in the name of each image the patient, video "
        r"or site that it is of, such as '^(patient\d+)_': its first group in parentheses, or the "
        "whole match. The images of one group are never in different splits; null: as the source "
        "says",
    )
    folds: Annotated[int | None, BeforeValidator(lambda given: given or None)] = Field(
        None,
        ge=2,
        le=100,
        description="number of folds of cross-validation that all images outside test are divided "
        "into: one experiment then trains so many models, each validated on the fold that it has "
        "not seen, and its metrics are their means; null: one split into train and val",
    )
    label_map: Annotated[str | None, BeforeValidator(label_map_text)] = Field(
        None,
        description="the class that each value or colour stored in the masks means, such as "
        "{0: 0, 1..127: 1, 128..254: 2, 255: void}, {'#000000': 0, '#ff0000': 1} or "
        "{0: 0, nonzero: 1}: a value, a range, a colour or nonzero (all that is not named), then "
        "the number of a class or void; "
        "classes.txt then names the map's classes; null: the values are the classes' numbers",
    )
    ignore: Annotated[str | None, BeforeValidator(ignore_text)] = Field(
        None,
        description="stored values that are void: a value, a range, a colour or a list of them, "
        "such as 0 or [0, 7..9, '#e0e0c0']; where they are the lowest numbers, those above "
        "are the classes from 0 up; null: 255, unless the masks hold only 0 and 255",
    )

    bands: Annotated[tuple[Band, ...], Field(min_length=1)] | None = Field(
        None,
        description="the bands of the images that are read, counted from 0, in the order of the "
        "channels; null: all but what the file marks as alpha",
    )
    value_range: tuple[Range, ...] | Range | None = Field(
        None,
        description="the stored values that become 0 and 1.0, [low, high], or one such pair for "
        "each channel; null: 8 bits as stored, 16 bits up to a robust maximum of the train "
        "images, other numbers by their robust range there",
    )
    no_data: tuple[Fills, ...] | Fills | None = Field(
        None,
        description="stored values of images that mean no measurement and are read as 0, such as "
        "[-9999], or one such list for each channel; null: those that are far from all others, "
        "where a range is measured",
    )
    pages: Pages | None = Field(
        None,
        description="what the pages of a TIFF are: samples (page i of the image with page i of "
        "the mask) or channels of one image; null: TIFFs of several pages are refused",
    )
    exif: Exif = Field(
        "image",
        description="orientation tags: image (each file is turned by its own), both (image and "
        "mask by the image's) or none (both as stored)",
    )
    missing: Missing = Field(
        "error",
        description="what stands for a file that is missing, of several that are the channels of "
        "one image: error or zeros",
    )

    @model_validator(mode="after")
    def _leaves_a_train_split(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            raise ConfigError(
                f"val_fraction {self.val_fraction} and test_fraction {self.test_fraction} leave "
                "nothing to train on: together they must be below 1."
            )
        return self

    @model_validator(mode="after")
    def _ranges_rise(self) -> Self:
        for low, high in self.input_form().ranges or ():
            if low >= high:
                raise ConfigError(
                    f"value_range [{low:g}, {high:g}]: the value that is 0 must be below the one "
                    "that is 1.0."
                )
        return self

    @abstractmethod
    def listing(self, on_progress: Progress | None = None) -> Listing:
        """The samples, found and paired but not opened. Raises DataError."""

    def reader(self) -> FileReader:
        """How a sample's files are decoded."""
        return plain_reader(self.input_form())

    def input_form(self) -> InputForm:
        """What is read of each file, as far as it is set."""
        ranges: tuple[Any, ...] | None = self.value_range
        if ranges is not None and not isinstance(ranges[0], tuple):
            ranges = (ranges,)
        fills: tuple[Any, ...] = self.no_data or ()
        if fills and not isinstance(fills[0], tuple):
            fills = (fills,)
        return InputForm(
            bands=self.bands,
            exif=self.exif,
            pages=self.pages,
            missing=self.missing,
            ranges=ranges,
            fills=fills,
        )

    def collect(self, on_progress: Progress | None = None) -> Collection:
        """The samples, found, split and hashed. Raises DataError."""
        found = self.grouped(self.listing(on_progress))
        listing = pooled(found) if self.folds else found
        drawn = self._drawn_fractions(listing)
        notes = (*listing.notes, *cut_groups(found.splits), *self._without_effect(found, drawn))
        reading = Reading(
            split=partial(self._split, fractions=drawn),
            split_record=self._split_record(listing, drawn),
            reader=self.reader(),
            label_map=self.label_map,
            ignore=self.ignore,
            form=self.input_form(),
        )
        return collect_files(replace(listing, notes=notes), reading, on_progress)

    def grouped(self, listing: Listing) -> Listing:
        """The listing with the groups that `group_pattern` finds. Raises DataError."""
        if self.group_pattern is None:
            return listing
        grouped = iter(grouped_by_name(listing.samples(), self.group_pattern))
        unsplit = [next(grouped) for _ in listing.unsplit]
        splits = {name: [next(grouped) for _ in each] for name, each in listing.splits.items()}
        return replace(listing, unsplit=unsplit, splits=splits)

    def drawn_split(
        self, listing: Listing, samples: Sequence[FileSample], classes: Classes
    ) -> Mapping[str, Sequence[str]]:
        """The names in each split, as `collect` draws them of `samples`. Raises DataError."""
        return self._split(samples, classes, self._drawn_fractions(listing))

    def _drawn_fractions(self, listing: Listing) -> dict[str, float]:
        """The share of each split that is drawn here, by the name of its field."""
        if not listing.unsplit:
            return {}
        shares = {"val": self.val_fraction, "test": self.test_fraction}
        if self.folds:
            del shares["val"]
        return {f"{k}_fraction": share for k, share in shares.items() if k not in listing.splits}

    def _split_record(self, listing: Listing, drawn: Mapping[str, float]) -> dict[str, Any]:
        record: dict[str, Any] = {"method": listing.method, **drawn}
        if listing.unsplit:
            record["seed"] = self.seed
        if self.folds:
            record["folds"] = self.folds
        groups = {sample.group for sample in listing.samples()} - {""}
        if groups:
            record["groups"] = len(groups)
        if self.group_pattern:
            record["group_pattern"] = self.group_pattern
        return record

    def _without_effect(self, listing: Listing, drawn: Mapping[str, float]) -> tuple[str, ...]:
        used = {*drawn, *(["seed"] if drawn or self.folds else [])}
        fields = type(self).model_fields
        idle = {
            name: getattr(self, name)
            for name in ("val_fraction", "test_fraction", "seed")
            if name not in used and getattr(self, name) != fields[name].default
        }
        return settings_without_effect(idle, sorted(listing.splits), self.folds)

    def _of_few_groups(self) -> str:
        """What helps, besides more data, where there are too few groups for the splits."""
        return WITHOUT_GROUPS if self.group_pattern else ""

    def _split(
        self, samples: Sequence[FileSample], classes: Classes, fractions: Mapping[str, float]
    ) -> Mapping[str, Sequence[str]]:
        wanted = {name.removesuffix("_fraction"): share for name, share in fractions.items()}
        groups = {sample.name: sample.group for sample in samples}
        splits = seeded_split(
            list(groups), wanted, self.seed, classes, groups, self._of_few_groups()
        )
        if not self.folds:
            return splits
        rest = splits.pop("train")
        held = {name: classes[name] for name in rest}
        return {**fold_split(rest, self.folds, self.seed, held, groups), **splits}
