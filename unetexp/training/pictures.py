"""Plots of a model's results: overlay grids, confusion matrix, learning curves.

K classes, H W image size.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from unetexp.data import Dataset, Sample, Samples
from unetexp.data.labels import VOID
from unetexp.data.painting import (
    VOID_COLOUR,
    RgbImage,
    colour_of,
    displayable,
    hex_colour,
    paint,
)

_ERROR = (255, 0, 80)
_TILE_PX, _CAPTION_PX, _CAPTION_LETTERS = 224, 16, 36


def fixed_images(count: int, wanted: int = 6) -> list[int]:
    """Indices of the validation images in every trial's overlay grid: evenly spread."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(wanted, count))})


def overlay_grid(
    data: Dataset,
    predictions: Mapping[int, Tensor],
    samples: Samples | None = None,
    error_captions: Mapping[int, str] | None = None,
) -> Image.Image:
    """One row per image: the image, the truth, the prediction, and where they differ.

    The rows are in the order of `predictions`, which are of `samples`, by default the val split;
    the `error_captions` of an image are drawn above its errors.
    """
    samples = data["val"] if samples is None else samples
    row_px = _TILE_PX + _CAPTION_PX
    sheet = Image.new("RGB", (_TILE_PX * 4, row_px * len(predictions) + _CAPTION_PX), "white")
    draw = ImageDraw.Draw(sheet)
    _draw_legend(draw, data.class_names)
    for row, (index, prediction) in enumerate(predictions.items()):
        sample = samples[index]
        top = _CAPTION_PX + row * row_px
        errors = (error_captions or {}).get(index, "errors")
        captions = (sample.name, "truth", "prediction", errors)
        tiles = _tiles(sample, prediction, data.image_max)
        for column, (caption, tile) in enumerate(zip(captions, tiles, strict=True)):
            draw.text((column * _TILE_PX + 2, top + 2), caption[:_CAPTION_LETTERS], fill="black")
            sheet.paste(_fit(tile), (column * _TILE_PX, top + _CAPTION_PX))
    return sheet


def as_png(picture: Image.Image) -> bytes:
    """For a picture that goes to two places: encoding takes longer than drawing."""
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()


def worst_grid(
    data: Dataset,
    worst: Mapping[int, Tensor],
    image_miou: Sequence[float] | Tensor,
    samples: Samples | None = None,
) -> Image.Image:
    """The overlay grid of the worst images, each with its mIoU."""
    error_captions = {index: f"errors, mIoU {float(image_miou[index]):.3f}" for index in worst}
    return overlay_grid(data, worst, samples, error_captions)


@dataclass(frozen=True)
class SheetRow:
    """One image's row of an overlay grid, cut out; the captions are strips of drawn text."""

    caption: Image.Image
    error_caption: Image.Image  # above the errors
    image: Image.Image
    truth: Image.Image
    prediction: Image.Image
    errors: Image.Image


def cut_grid(sheet: Image.Image) -> list[SheetRow]:
    """The rows of a sheet from `overlay_grid`; an empty list for any other image."""
    row_px = _TILE_PX + _CAPTION_PX
    rows, rest = divmod(sheet.height - _CAPTION_PX, row_px)
    if sheet.width != _TILE_PX * 4 or rest or rows < 0:
        return []
    return [_cut_row(sheet.convert("RGB"), _CAPTION_PX + row * row_px) for row in range(rows)]


def _cut_row(sheet: Image.Image, top: int) -> SheetRow:
    def cut(column: int, width: int, height: int) -> Image.Image:
        left, upper = column * _TILE_PX + 2, top + _CAPTION_PX + 2
        return sheet.crop((left, upper, left + width, upper + height))

    def caption(column: int) -> Image.Image:
        left = column * _TILE_PX
        return sheet.crop((left, top, left + _TILE_PX, top + _CAPTION_PX))

    # The errors are drawn on a darkened image: white pixels there belong to the sheet.
    errors: RgbImage = np.asarray(cut(3, _TILE_PX - 4, _TILE_PX - 4))
    inside = errors.min(axis=2) < 255
    height, width = int(inside.any(axis=1).sum()) or 1, int(inside.any(axis=0).sum()) or 1
    return SheetRow(caption(0), caption(3), *(cut(column, width, height) for column in range(4)))


def class_colours(class_names: Sequence[str]) -> list[tuple[str, str]]:
    """The colours of an overlay: name and #rrggbb; class 0 is not painted."""
    colours = [colour_of(label) for label in range(1, len(class_names))]
    named = [*zip(class_names[1:], colours, strict=True), ("wrong", _ERROR), ("void", VOID_COLOUR)]
    return [(name, hex_colour(colour)) for name, colour in named]


def _draw_legend(draw: ImageDraw.ImageDraw, class_names: Sequence[str]) -> None:
    """The classes' colours along the top; class 0 is not painted."""
    left = 2
    entries = [(name, colour_of(label)) for label, name in enumerate(class_names[1:], start=1)]
    for name, colour in [*entries, ("wrong", _ERROR), ("void", VOID_COLOUR)]:
        draw.rectangle((left, 3, left + 10, 13), fill=colour)
        draw.text((left + 14, 2), name, fill="black")
        left += 24 + round(draw.textlength(name))


def _tiles(sample: Sample, prediction: Tensor, image_max: int) -> list[RgbImage]:
    size = _tile_size(*sample.truth.shape)  # painting a photograph takes a gigabyte
    truth, predicted = _picked(sample.truth, size), _picked(prediction, size)
    image = displayable(_picked(sample.image, size), image_max)
    errors = image // 3
    errors[truth == VOID] = VOID_COLOUR
    errors[(truth != predicted) & (truth != VOID)] = _ERROR
    return [image, paint(image, truth), paint(image, predicted), errors]


def _tile_size(height: int, width: int) -> tuple[int, int]:
    """The size of an image's tile on the sheet, with its proportions kept."""
    scale = (_TILE_PX - 4) / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _picked(pixels: Tensor, size: tuple[int, int]) -> NDArray[Any]:
    """The nearest pixels (..., h, w) of a picture (..., H, W), as Pillow picks them."""
    found = pixels.numpy()
    rows, columns = (
        ((np.arange(new) + 0.5) * (old / new)).astype(np.int64)
        for new, old in zip(size, found.shape[-2:], strict=True)
    )
    return found[..., rows[:, np.newaxis], columns]


def _fit(pixels: RgbImage) -> Image.Image:
    """The tile in the sheet's square."""
    square = Image.new("RGB", (_TILE_PX, _TILE_PX), "white")
    square.paste(Image.fromarray(pixels), (2, 2))
    return square


def draw_confusion(path: Path, confusion: Sequence[Sequence[int]], names: Sequence[str]) -> None:
    """Plot the confusion matrix (K, K), each row as shares of its true class."""
    matrix = np.asarray(confusion, dtype=np.float64)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 2.2 + 0.55 * len(names)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(names) <= 20:
        for (row, column), share in np.ndenumerate(shares):
            colour = "white" if share > 0.5 else "black"
            axes.text(column, row, f"{share:.0%}", ha="center", va="center", color=colour)
    figure.colorbar(picture, label="share of the true class")
    figure.savefig(path)


def draw_curves(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Plot the losses next to mIoU and Dice, one point per epoch."""
    epochs = [report["epoch"] for report in history]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    panels = {"loss": ("train/loss", "val/loss"), "validation": ("val/miou", "val/dice")}
    for position, (title, metrics) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, 2, position, title=title, xlabel="epoch")
        for metric in metrics:
            axes.plot(epochs, [report[metric] for report in history], marker=".", label=metric)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path)
