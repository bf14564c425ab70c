"""What was understood of a data set, in one paragraph of plain English."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from unetexp.component import Component
from unetexp.data.dataset import Dataset
from unetexp.data.decoded.split import Split
from unetexp.data.label_values.remedies import percent
from unetexp.data.labels import VOID
from unetexp.data.splits.fold_names import fold_name

_SHOWN = 12


def paragraph(source: Component, data: Dataset) -> str:
    """Pairs, splits, sizes, classes and how the values are read, of the opened `source`."""
    return " ".join(
        (
            _pairs(source, data),
            _images(source, data),
            _classes(data),
            _labels(source, data),
        )
    )


def _pairs(source: Component, data: Dataset) -> str:
    kind = getattr(source, "kind", "")
    place = getattr(source, "root", None) or getattr(source, "path", None)
    where = f"{place} ({kind})" if place else kind
    total = sum(len(split) for split in _parts(data).values())
    sizes = ", ".join(f"{name} {len(split)}" for name, split in _parts(data).items())
    if data.folds:
        sizes = f"{len(data.folds)} folds, each validated on once ({sizes})"
    return f"{total} images with masks from {where}: {sizes}, {_method(data.split_record)}."


def _parts(data: Dataset) -> dict[str, Split]:
    """The splits, or the folds and what is outside them: every image once."""
    if not data.folds:
        return dict(data.splits)
    rest = {name: split for name, split in data.splits.items() if name not in ("train", "val")}
    return {fold_name(number): fold for number, fold in enumerate(data.folds)} | rest


def _method(record: Any) -> str:
    """How the splits came about."""
    method = str(record.get("method", ""))
    if method == "folders":
        return "as given by the folders"
    if not method.startswith("seeded"):
        return f"as given ({method})" if method else "as given"
    shares = [
        f"{100 * record[key]:g} % {name}"
        for name, key in (("val", "val_fraction"), ("test", "test_fraction"))
        if record.get(key)
    ]
    others = method.removeprefix("seeded").strip(" ,")
    by_class = ["each class in its share"] if "stratified" in record else []
    how = ", ".join([" and ".join(shares)] * bool(shares) + by_class)
    drawn = f"drawn by seed {record.get('seed', 0)}" + (f" ({how})" if how else "")
    return f"{drawn}; {others}" if others else drawn


def _images(source: Component, data: Dataset) -> str:
    splits = list(_parts(data).values())
    size = f"{_sizes([shape for s in splits for shape in s.original_shapes])} px (height x width)"
    if data.resize is not None:
        scaled = _sizes([shape for split in splits for shape in split.shapes])
        size = f"{size}, scaled to {scaled} px for the model (data.resize)"
    bits = 8 if data.image_max == VOID and _bits(splits) == 8 else 16
    bands = getattr(source, "bands", None)
    channels = f"{data.channels} channel{'s' if data.channels != 1 else ''}"
    chosen = f" (bands {', '.join(map(str, bands))})" if bands else ""
    return (
        f"Images are {size}, {channels}{chosen} of {bits} bits{_orientation(source)}; the value "
        f"{data.image_max} counts as 1.0."
    )


def _orientation(source: Component) -> str:
    exif = getattr(source, "exif", None)
    if exif is None or getattr(source, "kind", "") == "nifti":
        return ""  # not of files that have such a tag
    return {
        "none": ", as stored, whatever their EXIF tags say",
        "both": ", upright by the EXIF tag of the image, their masks turned with them",
    }.get(exif, ", upright by their EXIF tags")


def _sizes(shapes: Sequence[tuple[int, int]]) -> str:
    heights, widths = zip(*shapes, strict=True)
    return f"{_span(heights)} x {_span(widths)}"


def _bits(splits: Sequence[Split]) -> int:
    return 8 if all(split.pixel_type.itemsize == 1 for split in splits) else 16


def _span(sizes: Sequence[int]) -> str:
    low, high = min(sizes), max(sizes)
    return str(low) if low == high else f"{low} to {high}"


def _classes(data: Dataset) -> str:
    pixels = np.sum([split.class_pixels for split in _parts(data).values()], axis=0)
    labelled = max(int(pixels.sum()), 1)
    named = [
        f"{name} ({percent(count / labelled) if count else 'none'})"
        for name, count in zip(data.class_names, pixels.tolist(), strict=True)
    ]
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    return f"Masks hold {len(named)} classes: {', '.join(named[:_SHOWN])}{more}."


def _labels(source: Component, data: Dataset) -> str:
    """Which label is void, and by which map the others are read."""
    void = sum(split.void_pixels for split in _parts(data).values())
    total = void + sum(int(split.class_pixels.sum()) for split in _parts(data).values())
    label_map, ignore = getattr(source, "label_map", None), getattr(source, "ignore", None)
    how = f"Stored values are read by the label map {{{label_map}}}; " if label_map else ""
    what = f"{ignore} is void" if ignore else "void is what the map says" if label_map else ""
    what = what or (f"{data.void} is void" if data.void else "")
    if not void:
        return f"{how}{what}, but no pixel is." if what else "No pixel is void."
    return f"{how}{what or '255 is void'}: {percent(void / total)} of the pixels."
