"""Masks in which a colour means a class, and the tables that say which.

    label_colors.txt    64 128 64     Animal                  (CamVid)
    class_dict.csv      name,r,g,b                            (its copies on Kaggle)

H W image size, N colours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unetexp.data.collection import Labels
from unetexp.data.formats.tables import read_table
from unetexp.data.labels import VOID
from unetexp.data.reading.image_decoding import read_image
from unetexp.errors import DataError, listed

Colour = tuple[int, int, int]

_LINE = re.compile(r"\s*(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})\s+(\S.*?)\s*")


@dataclass(frozen=True)
class ColourTable:
    """The colour of each name, in the order of the file."""

    path: Path
    colours: Mapping[str, Colour]


def read_colour_table(path: Path) -> ColourTable:
    """A label_colors.txt or class_dict.csv. Raises DataError."""
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _text_rows(path)
    colours: dict[str, Colour] = {}
    for name, colour in rows:
        if max(colour) > 255:
            raise DataError(f"{path}: {name} is {colour}: colours go from 0 to 255.")
        if name in colours or colour in colours.values():
            raise DataError(f"{path}: {name} {colour}: its name or colour is there twice.")
        colours[name] = colour
    return ColourTable(path, colours)


def read_colour_mask(path: Path, table: ColourTable, classes: Mapping[str, int]) -> Labels:
    """The class (H, W) of each pixel's colour, by its name in `table`.

    Raises DataError naming colours that the table lacks.
    """
    image = read_image(path)[:3]  # (1 or 3, H, W)
    if image.dtype != np.uint8:
        raise DataError(f"{path}: the mask has 16 bits, and colours have 8. Export it again.")
    codes = _codes(np.broadcast_to(image, (3, *image.shape[1:])))  # (H, W)
    known = np.array([_code(colour) for colour in table.colours.values()])
    order = np.argsort(known)
    place = np.searchsorted(known[order], codes).clip(max=len(known) - 1)  # (H, W)
    stray = known[order][place] != codes
    if stray.any():
        found, counts = np.unique(codes[stray], return_counts=True)
        colours = [_colour(code) for code in found[np.argsort(-counts)].tolist()]
        raise DataError(
            f"{path}: {100 * stray.mean():.2g} % of the pixels have colours that {table.path} does "
            f"not name: {listed(colours, 3)}. Add them there, or export the mask as PNG without "
            "smoothing and without JPEG."
        )
    labels = np.array([classes[name] for name in table.colours], np.uint8)
    assert labels.max() <= VOID
    return np.asarray(labels[order][place])


def _codes(image: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    """One number for each colour: (3, H, W) -> (H, W)."""
    red, green, blue = image.astype(np.int64)
    codes: npt.NDArray[np.int64] = (red << 16) | (green << 8) | blue
    return codes


def _code(colour: Colour) -> int:
    return (colour[0] << 16) | (colour[1] << 8) | colour[2]


def _colour(code: int) -> Colour:
    return (code >> 16, (code >> 8) & 255, code & 255)


def _csv_rows(path: Path) -> list[tuple[str, Colour]]:
    table = read_table(path)
    if not {"name", "r", "g", "b"} <= set(table.columns):
        raise DataError(f"{path}: the header must be name,r,g,b. It is {listed(table.columns)}.")
    try:
        return [(r["name"], (int(r["r"]), int(r["g"]), int(r["b"]))) for r in table.rows]
    except ValueError as error:
        raise DataError(f"{path}: a colour is no whole number: {error}.") from None


def _text_rows(path: Path) -> list[tuple[str, Colour]]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: this file cannot be read: {error}") from None
    rows: list[tuple[str, Colour]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if not match:
            raise DataError(f"{path}: line {number} is {line!r}, not such as `64 128 64 Animal`.")
        rows.append((match[4], (int(match[1]), int(match[2]), int(match[3]))))
    return rows
