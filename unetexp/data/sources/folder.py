"""The user's own images: a folder of images with one mask each, in any usual layout.

ROOT/{train,val,test}/{images,masks}     the user's own split; test is optional
ROOT/{images,masks}/{train,val,test}     the same, the other way round
ROOT/{images,masks}                      split here, by a seed
ROOT/{0.png,0_mask.png}                  images beside their masks
ROOT/classes.txt                         optional: one class name per line, in index order

The folders may have other usual names; see unetexp/data/layouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from unetexp.data.collection import SPLITS, Progress
from unetexp.data.files.file_sample import FileSample, Listing
from unetexp.data.label_values.class_names import (
    CLASSES_FILE,
    CODES_FILE,
    ClassNames,
    class_names_in,
    read_class_names,
)
from unetexp.data.layouts.advice import train_folders
from unetexp.data.layouts.choice import found_files, mask_folder, named_files, require_splits
from unetexp.data.layouts.layout import split_and_name, wrapped
from unetexp.data.layouts.modalities import Modal, several_files
from unetexp.data.layouts.paired_files import Files
from unetexp.data.layouts.scanning import Scan
from unetexp.data.layouts.valid_list import FILE, divided
from unetexp.data.sources.file_source import FileSource, absolute
from unetexp.errors import DataError

__all__ = ["CLASSES_FILE", "Folder", "read_class_names"]

Pattern = Annotated[str, Field(min_length=1)]


class Folder(FileSource):
    """Images and masks in a folder, paired by name without the extension.

    The layout is found by the names of folders and files, and said; `images`, `masks` and
    `mask_suffix` set it. 255 is void, unless the masks hold
    only 0 and 255 or `label_map` says otherwise. The fractions and the seed apply if the folder
    has no split of its own: then each class gets its share of every split.
    """

    first_fields: ClassVar[tuple[str, ...]] = (
        "kind",
        "root",
        "val_fraction",
        "test_fraction",
        "seed",
    )

    kind: Literal["folder"] = "folder"
    root: Annotated[str, Field(min_length=1), AfterValidator(absolute)] = Field(
        description="the folder; stored as an absolute path"
    )
    images: Pattern | dict[str, Pattern] | None = Field(
        None,
        description="where the images lie: a folder below `root`, or a glob such as '*/images' "
        "(what its wildcards stand for is the split and the name); or several, each with a name, "
        "such as {ct: ct, pet: pet}: one file of each is a channel, or several, in this order; "
        "null: found by the folders' names",
    )
    masks: Pattern | None = Field(
        None,
        description="where the masks lie: a folder below `root`, or a glob; null: found, or beside "
        "the images where `images` is set",
    )
    mask_suffix: Pattern | None = Field(
        None,
        description="what the name of a mask has more than that of its image, such as _mask; "
        "null: found where all masks have it",
    )
    follow_links: bool = Field(False, description="whether links may lead out of `root`")

    def listing(self, on_progress: Progress | None = None) -> Listing:
        """The folder's pairs, by the layout that is set or found."""
        root = Path(self.root)
        if not root.is_dir():
            what = "is a file, not a folder" if root.is_file() else "does not exist"
            raise DataError(
                f"{root} {what}. Give the folder that holds images and masks (or, on the command "
                "line, a table that names them, or a kind such as mni152)."
            )
        classes = class_names_in(root) or class_names_in(wrapped(root))
        scan = Scan(root, self.follow_links)
        if isinstance(self.images, dict):
            masks, zeros = self.masks or mask_folder(root), self.missing == "zeros"
            modal = several_files(scan, self.images, masks, self.mask_suffix, zeros)
            return self._listing(_modal_samples(modal), (*modal.notes, *scan.notes()), classes)
        if self.images is None and self.masks is None:
            files, notes = found_files(scan, self.mask_suffix)
        else:
            files, notes = named_files(scan, self.images, self.masks, self.mask_suffix)
        return self._listing(_samples(files), (*notes, *scan.notes()), classes)

    def _listing(
        self,
        samples: Mapping[str | None, list[FileSample]],
        notes: tuple[str, ...],
        classes: ClassNames | None,
    ) -> Listing:
        root = Path(self.root)
        first = next(iter(samples.get("train", ())), None)
        train = train_folders(root, first.image, first.mask) if first else ()
        splits = [split for split, members in samples.items() for _ in members]
        require_splits(splits, str(root), train)
        listing = self._named(Listing(root, notes=notes), classes)
        if None in samples:
            own = divided(root, samples[None]) if classes and classes.stored else None
            if own:
                return replace(listing, splits=own, method=FILE)
            return replace(listing, unsplit=samples[None], method="seeded")
        return replace(listing, splits={name: samples[name] for name in SPLITS if name in samples})

    def _named(self, listing: Listing, classes: ClassNames | None) -> Listing:
        """The listing with the names of classes; settings go before what codes.txt makes void."""
        if classes is None:
            return listing
        if classes.stored and self.label_map:
            return listing  # they name the stored values, and the map makes others
        if classes.stored and self.ignore:
            return replace(listing, class_names=classes.stored)
        label_map, notes = classes.label_map(), listing.notes
        if label_map:
            notes = (*notes, _void_note(classes))
        return replace(
            listing,
            class_names=classes.names,
            class_colours=classes.colours,
            label_map=label_map,
            void=classes.void(),
            notes=notes,
        )


def _void_note(classes: ClassNames) -> str:
    return (
        f"{CODES_FILE} names the stored values from 0 up. {classes.void()} is read as void, and "
        "the classes after it move up; to keep it as a class: --set data.ignore=255."
    )


def _samples(files: Files) -> dict[str | None, list[FileSample]]:
    """The pairs of each split by name, None: those without."""
    found: dict[str | None, list[FileSample]] = {}
    for name, image, mask in sorted(files.match.pairs):
        split, own = split_and_name(name)
        sample = FileSample(own, (files.images[image],), files.masks[mask])
        found.setdefault(split, []).append(sample)
    return found


def _modal_samples(modal: Modal) -> dict[str | None, list[FileSample]]:
    found: dict[str | None, list[FileSample]] = {}
    for name, images, mask in modal.samples:
        split, own = split_and_name(name)
        found.setdefault(split, []).append(FileSample(own, images, mask))
    return found
