"""Overlapping tiles of an image, and their scores merged without a visible seam.

Only the inner part of a tile, its core, is used: pixels nearer to a cut than the margin are
discarded, because the network's padding has changed them. Neighbouring cores overlap by the seam,
across which they are blended. Scores are finished block by block, in reading order, so that
only one tile and the seam above it are in memory. Without torch, as exported models are served
without it.

K classes, H W image size, h w size of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from unetexp.errors import ConfigError

TILE_PX, OVERLAP_PX = 1024, 256

T = TypeVar("T")
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in pixels of the image."""

    tile: slice
    core: slice  # inside the tile
    enters: int  # how many pixels of the core fade in from the previous tile; 0 in the first
    leaves: int  # how many fade out into the next one; 0 in the last

    @property
    def finished(self) -> slice:
        """The pixels that no later tile changes."""
        return slice(self.core.start, self.core.stop - self.leaves)

    @property
    def size(self) -> int:
        """Pixels of the tile."""
        size: int = self.tile.stop - self.tile.start
        return size

    @property
    def inner(self) -> slice:
        """The core's place in the tile."""
        return slice(self.core.start - self.tile.start, self.core.stop - self.tile.start)

    def fade(self) -> Scores:
        """The core's weights; with those of the neighbours they add up to 1."""
        weights = np.ones(self.core.stop - self.core.start, np.float32)
        if self.enters:
            weights[: self.enters] = (np.arange(self.enters) + 0.5) / self.enters
        if self.leaves:
            weights[-self.leaves :] = 1 - (np.arange(self.leaves) + 0.5) / self.leaves
        return weights


@dataclass(frozen=True)
class Block(Generic[T]):
    """The finished scores of a part of the image: an array, or a tensor of torch."""

    rows: slice
    columns: slice
    scores: T  # (K, h, w) float32


def spans(size: int, tile: int, overlap: int, seam: int) -> list[Span]:
    """The tiles along an axis of `size` pixels; one if it is no longer than a tile.

    They start at multiples of `tile` - `overlap`; the last one ends with the image and is longer
    than `overlap`. `seam` is at most `overlap` and at most `tile` - `overlap`.
    """
    if size <= tile:
        return [Span(slice(0, size), slice(0, size), enters=0, leaves=0)]
    step, margin = tile - overlap, (overlap - seam) // 2
    starts = range(0, size - overlap, step)
    return [
        Span(
            tile=slice(start, min(start + tile, size)),
            core=slice(
                start + margin if start else 0,
                start + tile - margin if start != starts[-1] else size,
            ),
            enters=seam if start else 0,
            leaves=seam if start != starts[-1] else 0,
        )
        for start in starts
    ]


@dataclass(frozen=True)
class Tiles:
    """How large images are divided."""

    side_px: int
    overlap_px: int
    seam_px: int  # the width of the blend between neighbours: an even number, 0 for a hard switch

    @classmethod
    def of(
        cls, tile_px: int, overlap_px: int | None, multiple: int, radius_px: int | None
    ) -> Tiles:
        """Sides and overlap as multiples of what a network needs, a seam as it allows.

        The rest of the overlap is margin, half of it on either side, where a tile is left out: at
        least the receptive radius, if the overlap is twice that. Raises ConfigError unless
        0 <= overlap < tile.
        """
        tile = -(-tile_px // multiple) * multiple
        usual = min(-(-OVERLAP_PX // multiple) * multiple, tile // 2 // multiple * multiple)
        overlap = usual if overlap_px is None else -(-overlap_px // multiple) * multiple
        if not 0 <= overlap < tile:
            raise ConfigError(
                f"tiles of {tile_px} pixels that overlap by {overlap_px}: the tile must be larger "
                f"than the overlap, and neither may be negative. The defaults are {TILE_PX} and "
                f"{OVERLAP_PX}; both are rounded up to multiples of {multiple}."
            )
        seam = min(overlap // 4, tile - overlap)
        if radius_px is not None and overlap >= 2 * radius_px:
            seam = min(seam, overlap - 2 * radius_px)
        return cls(tile, overlap, seam - seam % 2)

    def grid(self, height: int, width: int) -> tuple[list[Span], list[Span]]:
        """The tiles of an image of that size, by rows and by columns; one if it is not larger."""
        rows, columns = (
            spans(size, self.side_px, self.overlap_px, self.seam_px) for size in (height, width)
        )
        return rows, columns


@lru_cache(maxsize=256)
def cheapest_spans(
    height: int, width: int, overlap: int, most_pixels: int, stride: int
) -> tuple[Sequence[Span], Sequence[Span]]:
    """Rows and columns of tiles of at most `most_pixels` that compute the fewest pixels.

    Tiles that must overlap cannot be smaller than `overlap` and a stride: where that is more than
    `most_pixels`, they are of that size. Overlaps are multiples of `stride`, without a seam.
    """
    by_rows, by_columns = (_divisions(size, overlap, stride) for size in (height, width))
    layouts = [(rows, columns) for rows in by_rows for columns in by_columns]
    fitting = [layout for layout in layouts if largest_tile(*layout) <= most_pixels]
    return min(fitting, key=lambda layout: computed_pixels(*layout), default=layouts[-1])


def largest_tile(rows: Sequence[Span], columns: Sequence[Span]) -> int:
    """Pixels of the largest tile."""
    return max(row.size for row in rows) * max(column.size for column in columns)


def computed_pixels(rows: Sequence[Span], columns: Sequence[Span]) -> int:
    """Pixels of all tiles, those that overlap counted again."""
    return sum(row.size for row in rows) * sum(column.size for column in columns)


def _divisions(size: int, overlap: int, stride: int) -> list[list[Span]]:
    """The axis in one tile, in two, ... up to the smallest that overlap."""
    steps = {
        -(-(size - overlap) // (count * stride)) * stride
        for count in range(2, -(-(size - overlap) // stride) + 1)
    }
    tiles = [overlap + step for step in sorted(steps, reverse=True)]
    return [spans(size, max(size, 1), 0, 0), *(spans(size, tile, overlap, 0) for tile in tiles)]


def blended(
    rows: Sequence[Span], columns: Sequence[Span], score: Callable[[slice, slice], Scores]
) -> Iterator[Block[Scores]]:
    """The scores of the whole image in blocks that do not overlap and cover the image.

    `score` returns those of the tile at (rows, columns): (K, H, W) float32 of the tile's size.
    """
    above = np.empty(0, np.float32)  # (K, seam, W): what the tiles above add to the row
    for row in rows:
        below = np.empty(0, np.float32)
        left = np.empty(0, np.float32)  # (K, h, seam): what the tile to the left adds to the next
        for column in columns:
            core = _faded_core(row, column, score(row.tile, column.tile))
            core[:, :, : column.enters] += left if column.enters else 0
            whole = core.shape[2] - column.leaves
            left, core = core[:, :, whole:].copy(), core[:, :, :whole]
            core[:, : row.enters] += above[:, :, column.finished] if row.enters else 0
            whole = core.shape[1] - row.leaves
            if column is columns[0]:
                below = np.empty((len(core), row.leaves, columns[-1].core.stop), np.float32)
            below[:, :, column.finished] = core[:, whole:]
            yield Block(row.finished, column.finished, core[:, :whole])
        above = below


def _faded_core(row: Span, column: Span, scores: Scores) -> Scores:
    core: Scores = scores[:, row.inner, column.inner]
    return core * row.fade()[:, np.newaxis] * column.fade()
