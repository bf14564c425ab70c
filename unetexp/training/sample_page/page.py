"""The page itself: one HTML file without anything from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from unetexp.data import Dataset
from unetexp.training.config import TrainConfig
from unetexp.training.pictures import class_colours, fixed_images
from unetexp.training.sample_page.pictures import shown_sample

_NOT_SHOWN = ("preset", "crop_px")  # they are in the heading


@dataclass(frozen=True)
class ClassRow:
    """A line of the legend."""

    name: str
    colour: str  # empty: not painted
    pixels: str
    images: str


def sample_page(
    data: Dataset, config: TrainConfig, where: str, split: str, count: int, views: int
) -> str:
    """The HTML of `count` samples, spread evenly over the split, with `views` views of each."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    indices = fixed_images(len(data[split]), count)
    return templates.get_template("page.html").render(
        where=where,
        split=split,
        images=len(data[split]),
        augment=config.augment,
        settings={
            name: value
            for name, value in config.augment.tree().items()
            if name not in _NOT_SHOWN and value != (1 if name == "low_resolution" else 0)
        },
        classes=class_rows(data, split),
        notes=[*data.notes, *size_notes(data, config, split)],
        samples=[shown_sample(data, config, split, index, views) for index in indices],
    )


def size_notes(data: Dataset, config: TrainConfig, split: str) -> list[str]:
    """What to know about the crop beside the images' sizes."""
    crop_px = config.augment.crop_px
    smallest = min(min(shape) for shape in data[split].shapes)
    if smallest >= crop_px:
        return []
    fitting = max(16, smallest // 32 * 32)
    return [
        f"Crops of {crop_px} px are larger than the smallest image, whose shorter side has "
        f"{smallest} px: the rest is void (grey). --set augment.crop_px={fitting} fits."
    ]


def class_rows(data: Dataset, split: str) -> Sequence[ClassRow]:
    """Each class's colour, share of the split's pixels and number of images, and void's."""
    part = data[split]
    total = int(part.class_pixels.sum()) + part.void_pixels
    colours = dict(class_colours(data.class_names))
    in_images = (part.class_places.counts > 0).sum(axis=0).tolist()
    rows = [
        ClassRow(name, colours[name] if label else "", _share(pixels, total), f"{images}")
        for label, (name, pixels, images) in enumerate(
            zip(data.class_names, part.class_pixels.tolist(), in_images, strict=True)
        )
    ]
    return [*rows, ClassRow("void", colours["void"], _share(part.void_pixels, total), "")]


def _share(pixels: int, total: int) -> str:
    """`12.3 %`; small shares with two digits that count, none as 0."""
    percent = 100 * pixels / total
    return f"{percent:.1f} %" if percent >= 1 or not pixels else f"{percent:.2g} %"
