"""A decoded data set: its splits, and what is known about it. K classes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from unetexp.data.decoded.joined_split import split_of_tree
from unetexp.data.decoded.split import DecoderOf, Split
from unetexp.data.reading.input_form import InputForm
from unetexp.data.resizing import Resize, plain, resize_value
from unetexp.data.splits.fold_names import fold_name
from unetexp.errors import DataError


@dataclass(frozen=True)
class Dataset:
    """Images and masks in splits `train`, `val` and, where there is one, `test`.

    Where all but test is divided into `folds`, train and val are both all of it: each image is
    trained on by all models but one, and validated by that one. `unetexp.data.folded.rounds` has
    the data of each model.
    """

    fingerprint: str
    class_names: tuple[str, ...]
    channels: int  # of every image as it is returned
    image_max: int  # the pixel value that means 1.0
    notes: tuple[str, ...]  # what to tell the user about the data
    splits: Mapping[str, Split]
    split_record: Mapping[str, Any] = field(default_factory=dict)  # how the splits were made
    problems: tuple[str, ...] = ()  # why no model should be trained on it
    resize: Resize | None = None  # how the images were scaled to their working size
    form: InputForm | None = None  # how further files are read in the same way
    folds: tuple[Split, ...] = ()
    void: str = ""  # which stored value is void, in words; "": as the settings say
    val_in_train: bool = False  # the images of val are those of train, too: nothing validates

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    def __getitem__(self, name: str) -> Split:
        if name not in self.splits:
            raise DataError(f"The data has no {name!r} split. It has: {', '.join(self.splits)}.")
        return self.splits[name]

    def tree(self) -> dict[str, Any]:
        """All of it but the pixels, as JSON-safe values for another process on this machine."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        form = self.form.tree() if self.form else None
        splits = {name: split.tree() for name, split in self.splits.items()}
        folds = [fold.tree() for fold in self.folds]
        made = {"form": form, "resize": plain(self.resize), "splits": splits, "folds": folds}
        return own | made

    @classmethod
    def of_tree(cls, tree: Mapping[str, Any], decoder_of: DecoderOf | None = None) -> Dataset:
        """The data set that a `tree` tells of.

        `decoder_of` makes a `Decoder` again from its tree: `unetexp.data.sources.dataset_of_tree`
        has it.
        """
        splits = {n: split_of_tree(split, decoder_of) for n, split in tree["splits"].items()}
        lists = {name: tuple(tree[name]) for name in ("class_names", "notes", "problems")}
        form = InputForm.model_validate(tree["form"]) if tree["form"] else None
        folds = tuple(split_of_tree(fold, decoder_of) for fold in tree["folds"])
        resize = resize_value(tree["resize"])
        made = {"form": form, "resize": resize, "splits": splits, "folds": folds}
        return cls(**{**tree, **lists, **made})

    def summary(self) -> dict[str, Any]:
        """What a run records about its data, as JSON-safe values."""
        return {
            "fingerprint": self.fingerprint,
            "classes": list(self.class_names),
            "channels": self.channels,
            "image_max": self.image_max,
            **({"input": self.form.changes()} if self.form and self.form.changes() else {}),
            "split": dict(self.split_record),
            **({"resize": plain(self.resize)} if self.resize else {}),
            "splits": {name: self._split_summary(split) for name, split in self.splits.items()},
            **({"folds": [self._split_summary(fold) for fold in self.folds]} if self.folds else {}),
            "notes": list(self.notes),
        }

    def members(self) -> dict[str, dict[str, Any]]:
        """The names of the images of each split or fold, and their groups where they have any."""
        splits = dict(self.splits)
        if self.folds:
            folds = {fold_name(index): fold for index, fold in enumerate(self.folds)}
            splits = folds | {k: v for k, v in splits.items() if k not in ("train", "val")}
        return {
            name: {
                "images": list(split.names),
                **({"groups": list(split.groups)} if split.groups else {}),
            }
            for name, split in splits.items()
        }

    def _split_summary(self, split: Split) -> dict[str, Any]:
        heights, widths = zip(*split.shapes, strict=True)
        pixels = int(split.class_pixels.sum()) + split.void_pixels
        fractions = zip(self.class_names, (split.class_pixels / pixels).tolist(), strict=True)
        return {
            "images": len(split),
            "height_px": [min(heights), max(heights)],
            "width_px": [min(widths), max(widths)],
            "class_fractions": dict(fractions),
            "void_fraction": split.void_pixels / pixels,
            **_original_summary(split),
            "names_sha256": hashlib.sha256("\n".join(split.names).encode()).hexdigest(),
        }


def _original_summary(split: Split) -> dict[str, Any]:
    if split.original_shapes == split.shapes:
        return {}
    heights, widths = zip(*split.original_shapes, strict=True)
    return {
        "original_height_px": [min(heights), max(heights)],
        "original_width_px": [min(widths), max(widths)],
    }
